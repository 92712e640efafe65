"""The loop: every option works, has its effect, and the same seed gives the same bits."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowtrain import checkpoint
from flowtrain import train as training
from flowtrain.build import Part, build_optimizer, build_parts, learning_rate, part_at
from flowtrain.config import Config, validate
from flowtrain.data import DENSITIES
from flowtrain.errors import TrainingError
from flowtrain.flows import FLOWS, Flow
from flowtrain.flows.ode import SolverError
from flowtrain.objectives import FlowMatching, RegularizedLikelihood, Scalars
from flowtrain.tracking import Tracker
from flowtrain.train import build_run, train

CONF = Path(__file__).parents[1] / "conf"
SOLVERS = sorted(path.stem for path in (CONF / "solver").glob("*.yaml") if path.stem != "none")
REGULARIZATIONS = sorted(path.stem for path in (CONF / "regularization").glob("*.yaml"))

Tiny = Callable[..., Config]
History = Callable[[Path], list[dict[str, Any]]]


def last(folder: Path) -> dict[str, Any]:
    return checkpoint.read(folder / "checkpoints" / "last.pt")


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def weights(folder: Path) -> Tensor:
    model = last(folder)["model"]
    return torch.cat([value.flatten() for name, value in model.items() if "weight" in name])


# --- what trains --------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_trains(tiny: Tiny, tmp_path: Path, solver: str) -> None:
    train(tiny(f"solver={solver}", "trainer.max_steps=3", model="ffjord"), tmp_path)
    assert result(tmp_path)["status"] == "completed"
    assert (result(tmp_path)["step"], result(tmp_path)["skipped_steps"]) == (3, 0)


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_every_kind_of_solver_trains_by_its_adjoint(
    tiny: Tiny, tmp_path: Path, history: History, solver: str
) -> None:
    config = tiny(f"solver={solver}", "solver.adjoint=true", "trainer.max_steps=5", model="ffjord")
    train(config, tmp_path)
    assert result(tmp_path)["skipped_steps"] == 0
    logged = next(line for line in history(tmp_path) if "nfe/backward" in line)
    assert logged["nfe/backward"] > 0


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_every_regularization_trains_and_logs_what_it_penalises(
    tiny: Tiny, tmp_path: Path, history: History, regularization: str
) -> None:
    config = tiny(
        f"regularization={regularization}", "trainer.max_steps=3", "trainer.log_every=3",
        model="ffjord",
    )  # fmt: skip
    train(config, tmp_path)
    logged = next(line for line in history(tmp_path) if "loss" in line)
    for name, weight in config.regularization.arguments().items():
        assert (f"regularization/{name}" in logged) == (weight > 0)
        if weight:
            weighted = weight * logged[f"regularization/{name}"]
            assert logged[f"regularization/{name}_weighted"] == pytest.approx(weighted)


@pytest.mark.parametrize("override", ["model.field=time_mlp", "model.divergence=hutchinson"])
def test_every_kind_of_continuous_flow_trains(tiny: Tiny, tmp_path: Path, override: str) -> None:
    train(tiny(override, "trainer.max_steps=3", model="ffjord"), tmp_path)
    assert result(tmp_path)["skipped_steps"] == 0


def test_training_lowers_the_loss(tiny: Tiny, tmp_path: Path, history: History) -> None:
    train(tiny("trainer.max_steps=100", "optimizer.lr=0.02"), tmp_path)
    first, *_, final = [line["nll/val"] for line in history(tmp_path) if "nll/val" in line]
    assert final < first - 0.2


# --- the schedule -------------------------------------------------------------------------------


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
    schedule = tiny(*overrides).scheduler
    rates = [learning_rate(schedule, 3.0, done) for done in (0, 0.25, 0.5, 0.75, 1)]
    assert rates == pytest.approx([3 * rate for rate in expected], abs=1e-5)


def test_each_part_of_a_run_has_the_whole_course_of_the_rate(tiny: Tiny) -> None:
    config = tiny(
        "objective=flow_matching_then_likelihood", "objective.switch=0.75", "optimizer.lr=0.5",
        "objective.likelihood_lr=0.125", model="ffjord",
    )  # fmt: skip
    parts = build_parts(config)
    assert [type(part.objective) for part in parts] == [FlowMatching, RegularizedLikelihood]
    where = [part_at(parts, done) for done in (0, 0.375, 0.74999, 0.75, 0.875, 1)]
    assert [part.peak for part, _ in where] == [0.5, 0.5, 0.5, 0.125, 0.125, 0.125]
    assert [done for _, done in where] == pytest.approx([0, 0.5, 1, 0, 0.5, 1], abs=1e-4)


def test_flow_matching_gives_way_to_likelihood(
    tiny: Tiny, tmp_path: Path, history: History
) -> None:
    config = tiny(
        "objective=flow_matching_then_likelihood", "objective.switch=0.5", "trainer.log_every=1",
        "trainer.max_steps=6", model="ffjord",
    )  # fmt: skip
    train(config, tmp_path)
    lines = [line for line in history(tmp_path) if "loss" in line]
    assert ["nfe/forward" in line for line in lines] == [False] * 3 + [True] * 3
    assert [line["lr"] > 0 for line in lines[1:3] + lines[4:]] == [True] * 4


def test_the_optimizer_steps_with_the_scheduled_rate(
    tiny: Tiny, tmp_path: Path, history: History
) -> None:
    overrides = ["scheduler=cosine", "scheduler.warmup=0", "optimizer.lr=0.004"]
    train(tiny(*overrides, "trainer.max_steps=4", "trainer.log_every=1"), tmp_path)
    logged = [line["lr"] for line in history(tmp_path) if "lr" in line]
    assert logged == pytest.approx([0.004, 0.0034142, 0.002, 0.00058579], rel=1e-4)
    assert last(tmp_path)["optimizer"]["param_groups"][0]["lr"] == logged[-1]


# --- the options --------------------------------------------------------------------------------


@pytest.fixture
def stepped_with(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the norms of the gradients that optimizers have stepped with."""
    norms: list[float] = []

    def watched(config: Config, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        weights = list(parameters)
        optimizer = build_optimizer(config, weights)
        optimizer.register_step_pre_hook(
            lambda *_: norms.append(math.hypot(*(float(w.grad.norm()) for w in weights)))  # type: ignore[union-attr]
        )
        return optimizer

    monkeypatch.setattr(training, "build_optimizer", watched)
    return norms


def test_clip_bounds_the_norm_of_the_gradient(
    tiny: Tiny, tmp_path: Path, stepped_with: list[float]
) -> None:
    train(tiny("trainer.clip=0.01", "trainer.max_steps=5"), tmp_path)
    assert stepped_with == pytest.approx([0.01] * 5, rel=1e-3)


def test_clip_0_leaves_the_gradient_as_it_is(
    tiny: Tiny, tmp_path: Path, stepped_with: list[float], history: History
) -> None:
    train(tiny("trainer.clip=0", "trainer.max_steps=5", "trainer.log_every=1"), tmp_path)
    logged = [line["grad_norm"] for line in history(tmp_path) if "grad_norm" in line]
    assert stepped_with == pytest.approx(logged, rel=1e-5)
    assert min(logged) > 0.01


def test_weight_decay_shrinks_the_weights(tiny: Tiny, tmp_path: Path) -> None:
    norms = []
    for decay in (0.0, 10.0):
        folder = tmp_path / str(decay)
        train(tiny("optimizer=adamw", f"optimizer.weight_decay={decay}"), folder)
        norms.append(weights(folder).norm())
    assert norms[1] < 0.8 * norms[0]


def test_ema_changes_what_is_measured_and_nothing_else(
    tiny: Tiny, tmp_path: Path, history: History
) -> None:
    losses, measured = [], []
    for decay in (0.0, 0.9):
        folder = tmp_path / str(decay)
        train(tiny(f"trainer.ema={decay}"), folder)
        losses.append([line["loss"] for line in history(folder) if "loss" in line])
        measured.append([line["nll/val"] for line in history(folder) if "nll/val" in line])
    assert losses[0] == losses[1]
    assert measured[0][0] == measured[1][0]
    assert measured[0][1] != measured[1][1]


def test_ema_averages_with_its_decay(tiny: Tiny, tmp_path: Path) -> None:
    run = build_run(tiny("trainer.ema=0.75", "scheduler=constant"), tmp_path)
    weight = next(run.state.flow.parameters())
    average = None
    with Tracker(tmp_path, step=-1) as tracker:
        for _ in range(3):
            training.step(run, tracker)
            now = weight.detach().clone()
            average = now if average is None else 0.75 * average + 0.25 * now
    assert average is not None
    torch.testing.assert_close(next(run.state.measured.parameters()), average)


def test_patience_ends_a_run_that_no_longer_improves(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("optimizer.lr=1e-30", "trainer.patience=3", "trainer.evaluate_every=2")
    assert train(config, tmp_path).step == 6
    assert result(tmp_path)["status"] == "completed"
    assert result(tmp_path)["best_step"] == 0


def test_max_seconds_ends_a_run_at_the_end_of_its_schedule(
    tiny: Tiny, tmp_path: Path, history: History
) -> None:
    config = tiny(
        "trainer.max_seconds=0.3", "trainer.max_steps=1000000", "trainer.evaluate_every=1000000",
        "trainer.log_every=1",
    )  # fmt: skip
    assert 0 < train(config, tmp_path).step < 1_000_000
    assert result(tmp_path)["status"] == "completed"
    assert 0.3 <= result(tmp_path)["seconds"] < 4
    rates = [line["lr"] for line in history(tmp_path) if "lr" in line]
    assert rates[-1] < 0.5 * max(rates)


def test_dtype_holds_for_weights_data_and_solver(tiny: Tiny, tmp_path: Path) -> None:
    run = build_run(tiny("dtype=float64", model="ffjord"), tmp_path)
    assert {weight.dtype for weight in run.state.flow.state_dict().values()} == {torch.float64}
    assert {pool.x.dtype for pool in run.pools.values()} == {torch.float64}
    train(run.config, tmp_path)
    assert {w.dtype for w in last(tmp_path)["model"].values()} == {torch.float64}


def test_threads_are_honoured(tiny: Tiny, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        train(tiny("trainer.threads=2", "trainer.max_steps=1"), tmp_path)
        assert torch.get_num_threads() == 2
        assert result(tmp_path)["environment"]["threads"] == 2
    finally:
        torch.set_num_threads(before)


# --- chance -------------------------------------------------------------------------------------


def test_pools_are_as_large_as_asked_and_share_no_point(tiny: Tiny, tmp_path: Path) -> None:
    pools = build_run(tiny("pools.train=511", "pools.validation=512"), tmp_path).pools
    assert {name: len(pool.x) for name, pool in pools.items()} == {
        "train": 511, "validation": 512, "test": 64,
    }  # fmt: skip
    assert len(torch.cat([pool.x for pool in pools.values()]).unique(dim=0)) == 511 + 512 + 64


def test_the_seed_decides_weights_data_and_batches(tiny: Tiny, tmp_path: Path) -> None:
    def drawn(seed: int) -> list[Tensor]:
        run = build_run(tiny(f"seed={seed}"), tmp_path)
        weight = next(run.state.flow.parameters()).detach()
        return [weight, run.pools["train"].x, torch.rand(3, generator=run.state.generator)]

    assert all(torch.equal(a, b) for a, b in zip(drawn(0), drawn(0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn(0), drawn(1), strict=True))


def test_the_law_of_the_batches_does_not_depend_on_the_size_of_other_pools(
    tiny: Tiny, tmp_path: Path
) -> None:
    few, many = (build_run(tiny(f"pools.{name}=80"), tmp_path) for name in ("validation", "test"))
    assert torch.equal(few.pools["train"].x, many.pools["train"].x)


@pytest.mark.parametrize(
    ("model", "overrides"),
    [("realnvp", ["model.mixing=random"]), ("ffjord", ["model.divergence=hutchinson"])],
)
def test_the_same_seed_gives_the_same_bits(
    tiny: Tiny, tmp_path: Path, history: History, model: str, overrides: list[str]
) -> None:
    config = tiny(*overrides, "trainer.max_steps=6", model=model)
    torch.manual_seed(1)
    train(config, tmp_path / "a")
    torch.manual_seed(2)  # nothing may hang on torch's own generator
    train(config, tmp_path / "b")
    first, second = last(tmp_path / "a")["model"], last(tmp_path / "b")["model"]
    assert all(torch.equal(first[name], second[name]) for name in first)
    for line, again in zip(history(tmp_path / "a"), history(tmp_path / "b"), strict=True):
        clock = [tag for tag in line if tag == "seconds" or tag.startswith("speed/")]
        assert {**line, **dict.fromkeys(clock)} == {**again, **dict.fromkeys(clock)}


# --- failures -----------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], error: Exception | None = None) -> None:
    """Let the loss of some steps be NaN, or raise an error."""

    def build_spoilt_parts(config: Config) -> list[Part]:
        (part,), step = build_parts(config), count(1)

        def spoilt(flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Scalars]:
            loss, scalars = part.objective(flow, x, generator)
            if next(step) not in steps:
                return loss, scalars
            if error is not None:
                raise error
            return loss * math.nan, scalars

        return [replace(part, objective=spoilt)]

    monkeypatch.setattr(training, "build_parts", build_spoilt_parts)


@pytest.mark.parametrize("error", [None, SolverError("the ODE solver gave up")])
def test_a_single_failed_step_is_skipped_and_counted(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    spoil(monkeypatch, {3, 4, 8, 9}, error)
    train(tiny("trainer.max_failures=3"), tmp_path)
    assert result(tmp_path)["status"] == "completed"
    assert result(tmp_path)["skipped_steps"] == 4
    assert weights(tmp_path).isfinite().all()


def test_a_skipped_step_leaves_the_weights_alone(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {1, 2})
    run = build_run(tiny("trainer.max_failures=3", "trainer.ema=0.9"), tmp_path)
    before = {name: value.clone() for name, value in run.state.flow.state_dict().items()}
    with Tracker(tmp_path, step=-1) as tracker:
        training.step(run, tracker)
        training.step(run, tracker)
    assert all(torch.equal(before[name], v) for name, v in run.state.flow.state_dict().items())


def test_failures_in_a_row_end_the_run_and_keep_the_checkpoint(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, set(range(12, 20)))
    with pytest.raises(TrainingError) as caught:
        train(tiny("trainer.max_failures=3"), tmp_path)
    message = str(caught.value)
    assert "stopped at step 14: 3 steps in a row failed" in message
    assert "the loss is nan" in message
    assert str(tmp_path / "checkpoints") in message
    assert "try a lower optimizer.lr" in message
    assert result(tmp_path)["status"] == "failed"
    assert result(tmp_path)["error"] == message
    assert last(tmp_path)["progress"]["step"] == 10
    assert weights(tmp_path).isfinite().all()


def test_a_learning_rate_that_explodes_ends_the_run(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="steps in a row failed"):
        train(tiny("optimizer.lr=1e30"), tmp_path)
    assert weights(tmp_path).isfinite().all()


def test_a_solver_without_enough_steps_ends_the_run(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("solver=dopri5", "solver.max_steps=1", model="ffjord")
    with pytest.raises(TrainingError, match="it needs more than max_steps steps"):
        train(config, tmp_path)
    assert result(tmp_path)["skipped_steps"] == config.trainer.max_failures


# --- every combination --------------------------------------------------------------------------

CONF = Path(__file__).parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
BRIEF = (
    "trainer.max_steps=3", "trainer.evaluate_every=3", "trainer.figures=false",
    "trainer.device=cpu", "trainer.threads=1", "evaluation.grid=16",
)  # fmt: skip


@pytest.mark.parametrize("data", DENSITIES)
@pytest.mark.parametrize("model", FLOWS)
def test_every_model_trains_on_every_density(
    tiny: Tiny, tmp_path: Path, model: str, data: str
) -> None:
    result = train(tiny(f"data={data}", "trainer.max_steps=3", model=model), tmp_path)
    assert (result.status, result.step) == ("completed", 3)
    assert math.isfinite(result.metrics["kl/test"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, experiment: str
) -> None:
    few = ["pools.train=512", "pools.validation=64", "pools.test=64"]
    overrides = [] if experiment.startswith("digits") else few
    config = validate(compose(f"experiment={experiment}", *BRIEF, *overrides))
    result = train(config, tmp_path)
    assert (result.status, result.step) == ("completed", 3)
    assert math.isfinite(result.metrics["nll/test"])
