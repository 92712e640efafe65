"""A trained flow back from its run folder, and the public names."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flowtrain
from flowtrain.config.schema import Config
from flowtrain.densities.curves import Moons
from flowtrain.errors import ConfigError, UserError
from flowtrain.flows.flow import Flow
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.load import open_run
from flowtrain.training import start
from flowtrain.training.run import Run, build_run
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], Run]:
    """Return a function that trains in a folder and keeps the run, its weights the best ones."""
    runs: list[Run] = []

    def build_and_keep(config: Config, folder: RunFolder) -> Run:
        runs.append(build_run(config, folder))
        return runs[-1]

    monkeypatch.setattr(start, "build_run", build_and_keep)

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
    x = run.splits.test.x
    with torch.no_grad():
        assert torch.equal(flow.log_prob(x), run.state.eval_flow.log_prob(x))
    first, second = (
        each.sample(10, torch.Generator().manual_seed(5)) for each in (flow, run.state.eval_flow)
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


def test_an_opened_run_has_the_splits_and_the_density_that_it_trained_on(
    tiny: Tiny, tmp_path: Path, trained: Callable[[Config], Run]
) -> None:
    run = trained(tiny("seed=4"))
    opened = open_run(tmp_path, "last")
    assert (opened.step, opened.config, opened.flow.device.type) == (20, run.config, "cpu")
    for name in ("train", "val", "test"):
        assert torch.equal(getattr(opened.splits, name).x, getattr(run.splits, name).x)
    density = opened.density
    assert density is not None
    assert torch.equal(density.log_prob(opened.splits.test.x.double()), run.splits.test.log_p)
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


def test_the_columns_of_a_table_keep_their_names_and_it_is_not_opened(
    tiny_on_table: Tiny, tmp_path: Path
) -> None:
    path = tmp_path / "mine.csv"
    rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).tolist()
    path.write_text("a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    config = tiny_on_table(path, columns=["c", "a"])
    train(config, tmp_path / "run")
    path.unlink()
    opened = open_run(tmp_path / "run")
    assert opened.density is None
    assert opened.columns == ("c", "a")


def test_a_table_that_has_other_columns_now_is_told(tiny_on_table: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).tolist()
    path.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in rows))
    config = tiny_on_table(path, "trainer.max_steps=1")
    train(config, tmp_path / "run")
    path.write_text("a,b,log_prob\n" + "".join(f"{a},{b},{a * b}\n" for a, b in rows))
    with pytest.raises(UserError, match="the run learned 'a', 'b', there are 'a', 'b', 'log_prob'"):
        _ = open_run(tmp_path / "run").splits


def test_the_densities_are_public() -> None:
    assert flowtrain.densities.Moons is Moons
    assert issubclass(flowtrain.Flow, Flow)
    assert {"Density", "Moons", "circles", "eight_gaussians"} <= {*dir(flowtrain.densities)}
    assert all(getattr(flowtrain.densities, name) for name in dir(flowtrain.densities))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        flowtrain.laod  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, flowtrain, flowtrain.cli.flowtrain, flowtrain.config.schema;"
        "print(*{'torch', 'numpy', 'matplotlib', 'sklearn', 'scipy'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""


def test_an_unknown_density_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Moon'"):
        flowtrain.densities.Moon  # noqa: B018


FIELD = """
from flowtrain.flows.fields import TimeMLP


class Mine(TimeMLP):
    pass
"""


def test_a_run_with_code_of_its_user_s_own_loads_where_that_is_trusted(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_of_load.py").write_text(FIELD)
    folder = tmp_path / "run"
    overrides = ("model.field=own_of_load:Mine", "trainer.max_steps=2")
    train(tiny(*overrides, model="ffjord"), folder)
    assert flowtrain.load(folder, trust_code=True).dim == 2

    del sys.modules["own_of_load"]
    (tmp_path / "own_of_load.py").write_text("raise SystemExit('this code has run')")
    with pytest.raises(UserError) as caught:
        flowtrain.load(folder)
    assert str(caught.value) == (
        f"{folder}: this run uses code of its user's own, model.field=own_of_load:Mine: if you "
        "trust that code, say --trust-code (flowrun) or trust_code=True (Python)"
    )
