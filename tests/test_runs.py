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
from flowtrain.config import Config, validate
from flowtrain.errors import CheckpointError, ConfigError
from flowtrain.flows import Flow
from flowtrain.runs import open_run
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


def refusal(folder: Path, name: str = "best") -> str:
    with pytest.raises(CheckpointError) as caught:
        flowtrain.load(folder, checkpoint=name)
    return str(caught.value)


def test_a_folder_without_the_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "best.pt"
    assert refusal(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: no such folder"
    assert refusal(tmp_path) == f"there is no checkpoint {path}: {tmp_path} is no run folder"
    (tmp_path / "0-seed=0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "0-seed=0" / "checkpoints" / "best.pt").touch()
    assert refusal(tmp_path).endswith(
        f" is no run folder; one below it is: {tmp_path / '0-seed=0'}"
    )
    (tmp_path / "result.json").write_text("{}")
    assert refusal(tmp_path) == f"there is no checkpoint {path}: the run has saved none yet"
    assert refusal(tmp_path / "result.json").endswith(": a file, not a run folder")
    path.parent.mkdir()
    path.with_name("last.pt").touch()
    assert refusal(tmp_path) == f"there is no checkpoint {path}; the run has last"


def test_an_opened_run_has_the_pools_and_the_law_that_it_trained_on(
    tiny: Tiny, tmp_path: Path, trained: Callable[[Config], Run]
) -> None:
    run = trained(tiny("seed=4"))
    opened = open_run(tmp_path, "last")
    assert (opened.step, opened.config, opened.device.type) == (20, run.config, "cpu")
    pools, law = opened.pools(), opened.law()
    assert pools.keys() == run.pools.keys()
    assert all(torch.equal(pools[name].x, pool.x) for name, pool in run.pools.items())
    assert law is not None
    assert torch.equal(law.log_prob(pools["test"].x.double()), run.pools["test"].log_p)
    assert opened.columns == ("x0", "x1")
    with pytest.raises(ConfigError, match="cuda:77 is not on this machine"):
        open_run(tmp_path, device="cuda:77")


def test_an_opened_run_can_be_evaluated_by_another_solver(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("optimizer.lr=0.1", "trainer.max_steps=10", model="ffjord"), tmp_path)
    opened, x = open_run(tmp_path), torch.ones(1, 2)
    coarse = {"name": "euler", "step_size": 1.0, "dtype": None, "adjoint": False}
    other = opened.with_solver(coarse)
    assert other.config.evaluation.solver.model_dump() == coarse
    with torch.no_grad():
        assert (opened.flow.log_prob(x) - other.flow.log_prob(x)).abs() > 1e-4
    with pytest.raises(ConfigError, match=r"evaluation\.solver\.step_size: 0 is refused"):
        opened.with_solver({**coarse, "step_size": 0})


def test_the_columns_of_a_table_keep_their_names_while_it_is_there(
    tiny: Tiny, tmp_path: Path
) -> None:
    path = tmp_path / "mine.csv"
    rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).tolist()
    path.write_text("a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    data = {"name": "table", "path": str(path), "columns": ["c", "a"], "header": "auto"}
    pools = {"name": "split", "validation": 0.2, "test": 0.2, "seed": 0}
    config = validate({**tiny().model_dump(), "data": data, "pools": pools})
    train(config, tmp_path / "run")
    opened = open_run(tmp_path / "run")
    assert opened.law() is None
    assert opened.columns == ("c", "a")
    path.unlink()
    assert opened.columns == ("x0", "x1")


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
