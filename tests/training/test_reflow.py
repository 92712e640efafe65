"""Rectified flow: what it regresses on, and which teachers it takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError, UserError
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.runs.load import open_run
from flowtrain.training.reflow import Reflow, reflow
from flowtrain.training.trainer import train

Make = Callable[..., ContinuousFlow]
Tiny = Callable[..., Config]
History = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def teacher(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "ffjord"
    train(tiny("optimizer.lr=0.1", "trainer.max_steps=6", model="ffjord"), folder)
    return folder


def test_the_loss_is_zero_for_the_velocity_of_straight_lines(make_ffjord: Make) -> None:
    flow = make_ffjord()
    z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    still = Reflow(z, flow.standardize(z)[0])  # whitened, both ends are the same point
    for weight in flow.parameters():
        torch.nn.init.zeros_(weight)
    loss, scalars = still(flow, z, torch.Generator().manual_seed(1))
    assert loss.item() < 1e-20
    assert scalars() == {}
    moved = Reflow(z, flow.standardize(z + 2.0)[0])
    loss, _ = moved(flow, z, torch.Generator().manual_seed(1))
    assert loss.item() == pytest.approx(8.0)  # |x - z|², in two dimensions


def test_the_pairs_are_the_teacher_s_and_the_same_each_time(
    teacher: Path, make_ffjord: Make
) -> None:
    student = make_ffjord()
    first, again = (reflow(teacher=str(teacher), pairs=30, student=student) for _ in range(2))
    assert (first.base.dtype, first.data.dtype) == (student.points_dtype,) * 2
    assert torch.equal(first.data, again.data)
    assert (first.data - first.base).abs().max() > 0.1


def test_a_student_learns_from_its_teacher_s_folder(
    tiny: Tiny, teacher: Path, tmp_path: Path, history: History
) -> None:
    config = tiny(
        "objective=reflow", f"objective.teacher={teacher}", "objective.pairs=100", "solver=none",
        "trainer.max_steps=100", "trainer.evaluate_every=100", "trainer.log_every=10",
        "optimizer.lr=0.02", model="ffjord",
    )  # fmt: skip
    assert train(config, tmp_path / "student").step == 100
    losses = [line["loss"] for line in history(tmp_path / "student") if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]


def test_a_teacher_without_paths_is_refused(tiny: Tiny, tmp_path: Path, make_ffjord: Make) -> None:
    train(tiny("trainer.max_steps=2"), tmp_path / "realnvp")
    with pytest.raises(ConfigError, match=r"is a run of realnvp, which has no paths to straighten"):
        reflow(teacher=str(tmp_path / "realnvp"), pairs=10, student=make_ffjord())
    with pytest.raises(UserError, match="nowhere"):
        reflow(teacher=str(tmp_path / "nowhere"), pairs=10, student=make_ffjord())


def test_a_teacher_of_another_base_is_refused(
    tiny: Tiny, tmp_path: Path, make_ffjord: Make
) -> None:
    changes = ("model.base=student_t", "trainer.max_steps=1", "trainer.evaluate_every=1")
    train(tiny(*changes, model="ffjord"), tmp_path / "heavy")
    with pytest.raises(ConfigError, match="and its student begins at the normal law"):
        reflow(teacher=str(tmp_path / "heavy"), pairs=10, student=make_ffjord())


def test_a_teacher_of_another_dimension_is_refused(teacher: Path, make_ffjord: Make) -> None:
    with pytest.raises(ConfigError, match="its points have 2 dimensions, the data 3"):
        reflow(teacher=str(teacher), pairs=10, student=make_ffjord(3))


def test_a_student_of_a_conditional_teacher_learns_its_conditions(
    tiny: Tiny, tmp_path: Path
) -> None:
    given, brief = "data.condition=component", ("trainer.max_steps=1", "trainer.evaluate_every=1")
    train(tiny(given, *brief, model="ffjord"), tmp_path / "teacher")
    settings = ["objective=reflow", f"objective.teacher={tmp_path / 'teacher'}",
                "objective.pairs=200", "solver=none", *brief]  # fmt: skip
    found = train(tiny(given, *settings, model="ffjord"), tmp_path / "student").metrics
    assert "kl/component=0" in found
    with pytest.raises(ConfigError, match=r"condition, component \(0, 1 or 2\), is not .*, none;"):
        train(tiny(*settings, model="ffjord"), tmp_path / "other")
    run = open_run(tmp_path / "teacher")
    pairs = reflow(teacher=str(tmp_path / "teacher"), pairs=50, student=run.flow)
    assert pairs.context is not None
    assert {*pairs.context.argmax(1).tolist()} == {0, 1, 2}
    carried = run.flow.to_data(pairs.base, pairs.context)
    torch.testing.assert_close(carried, pairs.data)
