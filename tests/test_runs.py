"""A trained flow back from its run folder, and the public names."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flowtrain
from flowtrain import checkpoint
from flowtrain import train as training
from flowtrain.config import Config
from flowtrain.errors import CheckpointError
from flowtrain.flows import Flow
from flowtrain.train import Run, train

Tiny = Callable[..., Config]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], Run]:
    """Return a function that trains in a folder and keeps the run, its weights the best ones."""
    runs: list[Run] = []
    original = training.build_run

    def build_run(config: Config, folder: Path) -> Run:
        runs.append(original(config, folder))
        return runs[-1]

    monkeypatch.setattr(training, "build_run", build_run)

    def run(config: Config) -> Run:
        train(config, tmp_path)
        return runs[-1]

    return run


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("realnvp", ["model.mixing=random"]),
        ("realnvp", ["trainer.ema=0.5", "dtype=float64"]),
        ("ffjord", ["trainer.max_steps=4"]),
    ],
)
def test_a_loaded_flow_is_the_one_that_was_trained(
    tiny: Tiny,
    tmp_path: Path,
    trained: Callable[[Config], Run],
    model: str,
    overrides: list[str],
) -> None:
    run = trained(tiny("optimizer.lr=0.05", *overrides, model=model))
    flow = flowtrain.load(tmp_path)
    assert isinstance(flow, flowtrain.Flow)
    assert not flow.training
    x = run.pools["test"].x
    with torch.no_grad():
        assert torch.equal(flow.log_prob(x), run.state.measured.log_prob(x))
    first, second = (
        each.sample(10, torch.Generator().manual_seed(5)) for each in (flow, run.state.measured)
    )
    assert torch.equal(first, second)
    assert first.dtype == getattr(torch, run.config.dtype)


def test_best_and_last_are_both_there(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("optimizer.lr=0.5", "trainer.clip=0", "trainer.evaluate_every=2"), tmp_path)
    saved = checkpoint.read(tmp_path / "checkpoints" / "last.pt")["progress"]
    assert saved["best_step"] < saved["step"], "this run should get worse at its end"
    x = torch.zeros(1, 2)
    best, last = (flowtrain.load(tmp_path, checkpoint=name) for name in ("best", "last"))
    assert not torch.equal(best.log_prob(x), last.log_prob(x))
    assert torch.equal(best.log_prob(x), flowtrain.load(str(tmp_path)).log_prob(x))


def test_the_averaged_weights_are_what_is_loaded(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("trainer.ema=0.9"), tmp_path)
    state = checkpoint.read(tmp_path / "checkpoints" / "last.pt")
    loaded = flowtrain.load(tmp_path, checkpoint="last").state_dict()
    name = "transforms.0.conditioner.0.weight"
    assert torch.equal(loaded[name], state["ema"][f"module.{name}"])
    assert not torch.equal(loaded[name], state["model"][name])


@pytest.mark.parametrize("name", ["best", "first"])
def test_a_folder_without_the_checkpoint_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        flowtrain.load(tmp_path, checkpoint=name)
    path = tmp_path / "checkpoints" / f"{name}.pt"
    assert str(caught.value) == f"there is no checkpoint {path}"


def test_the_densities_are_public() -> None:
    moons = flowtrain.densities.DENSITIES["moons"]
    assert moons is flowtrain.densities.Moons
    assert issubclass(flowtrain.Flow, Flow)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        flowtrain.laod  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, flowtrain, flowtrain.cli, flowtrain.config;"
        "print(*{'torch', 'numpy', 'matplotlib', 'sklearn', 'scipy'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""
