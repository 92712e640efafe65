"""Rectified flow: what it regresses on, and which teachers it takes."""

from collections.abc import Callable
from pathlib import Path

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


def test_the_pairs_are_moved_once(make_ffjord: Make) -> None:
    pairs = Reflow(torch.zeros(5, 2), torch.ones(5, 2))
    flow, x = make_ffjord(), torch.zeros(4, 2, dtype=torch.float64)
    pairs(flow, x, torch.Generator())
    moved = pairs.base, pairs.data
    assert all(each.dtype == x.dtype for each in moved)
    pairs(flow, x, torch.Generator())
    assert (pairs.base is moved[0], pairs.data is moved[1]) == (True, True)


def test_the_pairs_are_the_teacher_s_and_the_same_each_time(teacher: Path) -> None:
    first, again = (reflow(teacher=str(teacher), pairs=30) for _ in range(2))
    assert torch.equal(first.data, again.data)
    assert (first.data - first.base).abs().max() > 0.1


def test_a_student_learns_from_its_teacher_s_folder(
    tiny: Tiny, teacher: Path, tmp_path: Path
) -> None:
    config = tiny(
        "objective=reflow", f"objective.teacher={teacher}", "objective.pairs=100", "solver=none",
        "trainer.max_steps=4", model="ffjord",
    )  # fmt: skip
    train(config, tmp_path / "student")
    assert (tmp_path / "student" / "result.json").exists()


def test_a_teacher_without_paths_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("trainer.max_steps=2"), tmp_path / "realnvp")
    with pytest.raises(ConfigError, match=r"is a run of realnvp, which has no paths to straighten"):
        reflow(teacher=str(tmp_path / "realnvp"), pairs=10)
    with pytest.raises(UserError, match="nowhere"):
        reflow(teacher=str(tmp_path / "nowhere"), pairs=10)


def test_a_teacher_of_another_base_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    changes = ("model.base=student_t", "trainer.max_steps=1", "trainer.evaluate_every=1")
    train(tiny(*changes, model="ffjord"), tmp_path / "heavy")
    with pytest.raises(ConfigError, match="and its student begins at the normal law"):
        reflow(teacher=str(tmp_path / "heavy"), pairs=10)


def test_a_teacher_of_another_dimension_is_refused(make_ffjord: Make) -> None:
    pairs = Reflow(torch.zeros(5, 3), torch.zeros(5, 3))
    with pytest.raises(ConfigError, match="its points have 3 dimensions, the data 2"):
        pairs(make_ffjord(), torch.zeros(4, 2).double(), torch.Generator())


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
    pairs = reflow(teacher=str(tmp_path / "teacher"), pairs=50)
    assert pairs.context is not None
    assert {*pairs.context.argmax(1).tolist()} == {0, 1, 2}
    run = open_run(tmp_path / "teacher")
    carried = run.flow.to_data(pairs.base, pairs.context)
    torch.testing.assert_close(carried, pairs.data)
