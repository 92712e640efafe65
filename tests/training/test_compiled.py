"""A compiled step: the same figures within rounding, nothing else changed, refused in a line."""

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError
from flowtrain.flows.linear import LULinear
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.training.compiled import CACHE
from flowtrain.training.run import build_run
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]
Losses = Callable[[Path], list[float]]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
SHORT = ("trainer.max_steps=5", "trainer.log_every=1", "scheduler=constant")
# What torch has to follow: every kind of map, in every direction that an objective takes.
STEPS = {
    **{
        name: (name,)
        for name in (
            "affine", "glow", "iaf", "maf", "maf_spline", "radial", "realnvp", "spline",
            "ffjord",
        )
    },
    "a condition": ("realnvp", "data.condition=component"),
    "a learned base": ("spline", "model.base=student_t"),
    "tails bent, in float64": ("realnvp", "model.whitening=johnson"),
    "an average": ("realnvp", "trainer.ema=0.9"),
    "from model to data": ("realnvp", "objective=reverse_kl", "objective.gradient=path"),
    "two objectives": ("ffjord", "objective=flow_matching_then_likelihood"),
    "penalties": ("ffjord", "regularization=rnode"),
    "an adjoint": ("ffjord", "solver.adjoint=true"),
    "a solver of its own dtype": ("ffjord", "solver.dtype=float64"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_left_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give back the environment, and keep what is compiled out of the user's cache."""
    for name in (CACHE, "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow the step as torch's compiler does, and run it without compiling: in a second."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setenv("CXX", sys.executable)  # whatever is there: it is not used


@pytest.mark.usefixtures("traced")
def test_a_run_is_the_same_with_and_without_and_resumes_either_way(
    tiny: Tiny, tmp_path: Path, losses: Losses, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flowtrain")
    eager, whole, mixed = (tmp_path / name for name in ("eager", "whole", "mixed"))
    train(tiny(*SHORT), eager)
    train(tiny(*SHORT, "trainer.compile=true"), whole)
    assert "compiled in" in caplog.text
    train(tiny(*SHORT, "trainer.max_steps=3", "trainer.compile=true"), mixed)
    train(tiny(*SHORT), mixed)
    expected = losses(eager)
    assert len(expected) == 5
    assert losses(whole) == pytest.approx(expected, rel=1e-5)
    assert losses(mixed) == pytest.approx(expected, rel=1e-5)
    states = [checkpoint.read(each / "checkpoints" / "last.pt") for each in (eager, whole, mixed)]
    assert states[0]["model"].keys() == states[1]["model"].keys() == states[2]["model"].keys()
    assert torch.equal(states[0]["generator"], states[1]["generator"])  # the same batches


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("case", STEPS)
def test_compiled_steps_have_the_losses_of_eager_ones(
    tiny: Tiny, tmp_path: Path, losses: Losses, case: str
) -> None:
    model, *more = STEPS[case]
    for name in ("true", "false"):
        train(tiny(*SHORT, *more, f"trainer.compile={name}", model=model), tmp_path / name)
        assert read_result(RunFolder(tmp_path / name))["skipped_steps"] == 0
    found, expected = (losses(tmp_path / name) for name in ("true", "false"))
    assert len(found) == 5
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert any((tmp_path / "cache" / "flowtrain" / "compiled").iterdir())


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_what_is_evaluated_and_saved_is_not_compiled(
    tiny: Tiny, tmp_path: Path, model: str
) -> None:
    run = build_run(tiny("trainer.compile=true", model=model), RunFolder(tmp_path))
    plain = build_run(tiny(model=model), RunFolder(tmp_path))
    assert plain.trained is plain.state.flow
    assert run.trained is not run.state.flow
    assert type(run.state.flow) is type(plain.state.flow)
    assert run.state.flow.state_dict().keys() == plain.state.flow.state_dict().keys()
    assert "inverse" not in vars(run.state.flow)
    pairs = zip(run.trained.parameters(), run.state.flow.parameters(), strict=True)
    assert all(one is other for one, other in pairs)


def test_without_a_compiler_nothing_is_trained(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler no-such-compiler here; install"):
        train(tiny("trainer.compile=true"), tmp_path)
    assert read_result(RunFolder(tmp_path))["status"] == "failed"
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.usefixtures("traced")
def test_what_torch_cannot_compile_is_told_in_a_line(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choosing(_: LULinear, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x if x.sum() > 0 else -x), x.new_zeros(len(x))

    monkeypatch.setattr(LULinear, "inverse", choosing)
    with pytest.raises(ConfigError, match="torch cannot compile affine here"):
        train(tiny("trainer.compile=true", model="affine"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_the_cache_is_the_user_s_unless_one_is_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_run(tiny("trainer.compile=true"), RunFolder(tmp_path))
    assert os.environ[CACHE] == str(tmp_path / "cache" / "flowtrain" / "compiled")
    elsewhere = str(tmp_path / "elsewhere")
    monkeypatch.setenv(CACHE, elsewhere)
    build_run(tiny("trainer.compile=true"), RunFolder(tmp_path))
    assert os.environ[CACHE] == elsewhere
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # there can be no folder in it
    build_run(tiny("trainer.compile=true"), RunFolder(tmp_path))
    assert "/dev/null" not in os.environ.get(CACHE, "")


@pytest.mark.parametrize("model", ["planar", "zuko", "normflows"])
def test_what_can_never_be_compiled_is_refused(tiny: Tiny, model: str) -> None:
    with pytest.raises(ConfigError, match=f"torch cannot compile {model}; leave it false"):
        tiny("trainer.compile=true", model=model)
