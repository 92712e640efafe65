"""The course of a run: its end, its phases, and the learning rate of each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.config.objective import FlowMatchingThenLikelihood
from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError
from flowtrain.runs.folder import RunFolder
from flowtrain.training.adam import Adam
from flowtrain.training.flow_matching import FlowMatching
from flowtrain.training.objectives import MaximumLikelihood
from flowtrain.training.run import build_run
from flowtrain.training.schedule import finished, phase_at, progress_fraction
from flowtrain.training.state import Progress
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]
History = Callable[[Path], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["scheduler=constant"], [1.0, 1.0, 1.0, 1.0, 1.0]),
        (["scheduler=constant", "scheduler.warmup=0.5"], [0.0, 0.5, 1.0, 1.0, 1.0]),
        (["scheduler=cosine", "scheduler.warmup=0"], [1.0, 0.853553, 0.5, 0.146447, 0.0]),
        (["scheduler=cosine", "scheduler.warmup=0.5"], [0.0, 0.5, 1.0, 0.5, 0.0]),
        (
            ["scheduler=cosine", "scheduler.warmup=0", "scheduler.final=0.2"],
            [1.0, 0.882843, 0.6, 0.317157, 0.2],
        ),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    tiny: Tiny, overrides: list[str], expected: list[float]
) -> None:
    scheduler = tiny(*overrides).scheduler
    rates = [scheduler.lr(3.0, done) for done in (0, 0.25, 0.5, 0.75, 1)]
    assert rates == pytest.approx([3 * rate for rate in expected], abs=1e-5)


def test_each_phase_of_a_run_has_the_whole_course_of_the_rate(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(
        "objective=flow_matching_then_likelihood", "objective.switch=0.75", "optimizer.lr=0.5",
        "objective.likelihood_lr=0.125", model="ffjord",
    )  # fmt: skip
    phases = build_run(config, RunFolder(tmp_path)).phases
    assert [type(phase.objective) for phase in phases] == [FlowMatching, MaximumLikelihood]
    where = [phase_at(phases, done) for done in (0, 0.375, 0.74999, 0.75, 0.875, 1)]
    assert [phase.max_lr for phase, _ in where] == [0.5, 0.5, 0.5, 0.125, 0.125, 0.125]
    assert [done for _, done in where] == pytest.approx([0, 0.5, 1, 0, 0.5, 1], abs=1e-4)


def test_flow_matching_gives_way_to_likelihood(
    tiny: Tiny, tmp_path: Path, history: History
) -> None:
    half_of_the_steps = 1 / (1 + FlowMatchingThenLikelihood.COST)
    config = tiny(
        "objective=flow_matching_then_likelihood", f"objective.switch={half_of_the_steps}",
        "trainer.log_every=1", "trainer.max_steps=6", model="ffjord",
    )  # fmt: skip
    train(config, tmp_path)
    lines = [line for line in history(tmp_path) if "loss" in line]
    assert ["nfe/forward" in line for line in lines] == [False] * 3 + [True] * 3
    assert [line["lr"] > 0 for line in lines[1:3] + lines[4:]] == [True] * 4


def test_the_optimizer_steps_with_the_scheduled_rate(
    tiny: Tiny, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    step = Adam.step

    def watched(adam: Adam) -> None:
        used.append(adam.lr)
        step(adam)

    monkeypatch.setattr(Adam, "step", watched)
    overrides = ["scheduler=cosine", "scheduler.warmup=0", "optimizer.lr=0.004"]
    train(tiny(*overrides, "trainer.max_steps=4", "trainer.log_every=1"), tmp_path)
    logged = [line["lr"] for line in history(tmp_path) if "lr" in line]
    assert logged == pytest.approx([0.004, 0.0034142, 0.002, 0.00058579], rel=1e-4)
    assert used == logged


def test_a_likelihood_trains_with_the_training_solver_divergence_and_penalties(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny("regularization=rnode", "model.divergence=hutchinson", model="ffjord")
    run = build_run(config, RunFolder(tmp_path))
    ((objective, until, max_lr),) = ((p.objective, p.until, p.max_lr) for p in run.phases)
    assert isinstance(objective, MaximumLikelihood)
    assert objective.solver == config.solver != config.evaluation.solver
    assert objective.divergence is not None
    assert objective.divergence.probes == 1
    assert (objective.kinetic, objective.jacobian) == (0.01, 0.01)
    assert (until, max_lr) == (1.0, config.optimizer.lr)


def test_steps_or_time_are_done_whichever_is_further(tiny: Tiny) -> None:
    by_steps, by_both = tiny("trainer.max_steps=10"), tiny("trainer.max_seconds=8")
    assert progress_fraction(by_steps, Progress(step=4, seconds=1e9)) == 0.4
    assert progress_fraction(by_steps, Progress(step=11)) == 1.0
    assert progress_fraction(by_both, Progress(step=5, seconds=6.0)) == 0.75
    assert progress_fraction(by_both, Progress(step=10, seconds=1.0)) == 0.5
    assert progress_fraction(by_both, Progress(step=1, seconds=9.0)) == 1.0


def test_the_last_step_ends_a_run_whatever_the_switch(tiny: Tiny) -> None:
    objective = tiny("objective=flow_matching_then_likelihood", model="ffjord").objective
    switched = (objective.model_copy(update={"switch": n / 1000}) for n in range(1, 1000))
    assert {each.done(1.0) for each in switched} == {1.0}


def test_a_phase_ends_by_the_same_fraction_of_steps_and_of_time(tiny: Tiny) -> None:
    overrides = ("objective=flow_matching_then_likelihood", "objective.switch=0.4")
    by_steps = tiny(*overrides, "trainer.max_steps=1000", model="ffjord")
    cost = FlowMatchingThenLikelihood.COST
    # n cheap steps and m dear ones, n + m = 1000, take the times 0.4 and 0.6.
    dear = 1000 * 0.6 / (0.6 + 0.4 * cost)
    for step, done in ((0, 0), (500, 200 / (1000 - dear)), (1000 - dear, 0.4), (1000, 1)):
        assert progress_fraction(by_steps, Progress(step=round(step))) == pytest.approx(
            done, abs=0.02
        )
    assert by_steps.objective.done(1 - dear / 1000) == pytest.approx(0.4)
    assert by_steps.objective.done(1 - dear / 2000) == pytest.approx(0.7)
    by_time = tiny(*overrides, "trainer.max_steps=null", "trainer.max_seconds=8", model="ffjord")
    assert progress_fraction(by_time, Progress(step=10**9, seconds=2.0)) == 0.25


@pytest.mark.parametrize("trainer", ["default", "spline", "ffjord", "flow_matching"])
def test_a_budget_of_time_lifts_the_default_limit_of_steps(
    compose: Callable[..., dict[str, Any]], trainer: str
) -> None:
    def limits(*overrides: str) -> tuple[int | None, float | None]:
        composed = compose(f"trainer={trainer}", *overrides)["trainer"]
        return composed["max_steps"], composed["max_seconds"]

    steps, seconds = limits()
    assert steps is not None
    assert seconds is None
    assert limits("trainer.max_seconds=60") == (None, 60)
    assert limits("trainer.max_seconds=60", "trainer.max_steps=7") == (7, 60)


def test_a_run_without_an_end_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="trainer: max_steps and max_seconds are both null"):
        tiny("trainer.max_steps=null")


def test_a_run_ends_by_its_steps_its_time_or_its_patience(tiny: Tiny) -> None:
    config = tiny("trainer.max_steps=10", "trainer.max_seconds=8", "trainer.patience=3")
    assert not finished(config, Progress(step=9, seconds=7.9, stale=2))
    assert finished(config, Progress(step=10))
    assert finished(config, Progress(seconds=8.0))
    assert finished(config, Progress(stale=3))
