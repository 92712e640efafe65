"""The loop: every option works, has its effect, and the same seed gives the same bits."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowtrain.comparison.compare import compare
from flowtrain.comparison.summary import find_runs
from flowtrain.config import CONF
from flowtrain.config.data import Table
from flowtrain.config.model import Model
from flowtrain.config.schema import Config, validate
from flowtrain.config.section import names, options
from flowtrain.config.splits import Random
from flowtrain.errors import TrainingError, UserError
from flowtrain.evaluation.metrics import training_metrics
from flowtrain.flows.flow import Flow
from flowtrain.flows.ode import SolverError
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.training import validation
from flowtrain.training.adam import Adam
from flowtrain.training.objectives import Scalars
from flowtrain.training.run import Run, build_run
from flowtrain.training.schedule import Phase, build_phases
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker
from flowtrain.training.trainer import train

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
    for name, weight in config.regularization.settings().items():
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


# --- the options --------------------------------------------------------------------------------


@pytest.fixture
def stepped_with(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the norms of the gradients that the optimizer steps with."""
    norms: list[float] = []
    step = Adam.step

    def watched(adam: Adam) -> None:
        slopes = [weight.grad for weight in adam.weights.each if weight.grad is not None]
        norms.append(math.hypot(*(float(slope.norm()) for slope in slopes)))
        step(adam)

    monkeypatch.setattr(Adam, "step", watched)
    return norms


def test_clip_bounds_the_norm_of_the_gradient(
    tiny: Tiny, tmp_path: Path, stepped_with: list[float]
) -> None:
    train(tiny("optimizer=adam", "trainer.clip=0.01", "trainer.max_steps=5"), tmp_path)
    assert stepped_with == pytest.approx([0.01] * 5, rel=1e-3)


def test_clip_0_leaves_the_gradient_as_it_is(
    tiny: Tiny, tmp_path: Path, stepped_with: list[float], history: History
) -> None:
    settings = ["optimizer=adam", "trainer.clip=0", "trainer.max_steps=5", "trainer.log_every=1"]
    train(tiny(*settings), tmp_path)
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
    run = build_run(tiny("trainer.ema=0.75", "scheduler=constant"), RunFolder(tmp_path))
    weight = next(run.state.flow.parameters())
    average = None
    with Tracker(RunFolder(tmp_path), step=-1, evaluated=-1) as tracker:
        for _ in range(3):
            train_step(run, tracker)
            now = weight.detach().clone()
            average = now if average is None else 0.75 * average + 0.25 * now
    assert average is not None
    torch.testing.assert_close(next(run.state.eval_flow.parameters()), average)


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


def test_a_budget_that_an_evaluation_uses_up_buys_no_further_step(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations: list[int] = []

    def slow(*arguments: Any, **options: Any) -> Any:
        evaluations.append(1)
        time.sleep(1.0 if len(evaluations) == 2 else 0.0)
        return training_metrics(*arguments, **options)

    monkeypatch.setattr(validation, "training_metrics", slow)
    config = tiny("trainer.max_seconds=1", "trainer.evaluate_every=5", "trainer.max_steps=1000000")
    assert train(config, tmp_path).step == 5
    assert len(evaluations) == 2  # at the start and at step 5; the closing one is another
    found = result(tmp_path)
    assert 1.0 <= found["evaluation_seconds"] <= found["seconds"]
    assert found["drawing_seconds"] == 0.0


def test_a_start_that_fails_says_why_in_its_folder(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny()
    table = config.model_copy(
        update={
            "data": Table(
                name="table",
                path="/nowhere.csv",
                columns=None,
                condition=None,
                categorical=None,
                header="auto",
                missing="refuse",
                dequantize=False,
            ),
            "splits": Random(name="random", val=0.1, test=0.1, seed=0),
        }
    )
    with pytest.raises(UserError, match="no such file"):
        train(table, tmp_path)
    found = result(tmp_path)
    assert (found["status"], found["error"]) == ("failed", "/nowhere.csv: no such file")
    with pytest.raises(UserError, match="none of 1 runs is completed: 1 failed"):
        compare(find_runs([tmp_path]))


def test_a_warm_start_from_another_model_says_so_in_its_folder(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("trainer.max_steps=1"), tmp_path / "first")
    other = tiny(f"init_from={tmp_path / 'first'}", "model.hidden=9")
    with pytest.raises(UserError, match="holds another model"):
        train(other, tmp_path / "second")
    assert result(tmp_path / "second")["status"] == "failed"
    assert "model.hidden" in result(tmp_path / "second")["error"]


def test_final_figures_name_the_step_of_their_weights(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[str, int] = {}

    def remember(run: Run, name: str, *, step: int) -> dict[str, Any]:
        steps[name] = step
        return {}

    monkeypatch.setattr(validation, "draw", remember)
    nlls = iter([3.0, 2.0, 2.5])  # step 10 is the best of 0, 10 and 20
    monkeypatch.setattr(
        validation,
        "training_metrics",
        lambda *a, **o: training_metrics(*a, **o) | {"nll/val": next(nlls)},
    )
    train(tiny("trainer.figures=true"), tmp_path)
    assert steps == {"step-000010": 10, "step-000020": 20, "final": 10}


def test_threads_are_honoured(tiny: Tiny, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        train(tiny("trainer.threads=2", "trainer.max_steps=1"), tmp_path)
        assert torch.get_num_threads() == 2
        assert result(tmp_path)["environment"]["threads"] == 2
    finally:
        torch.set_num_threads(before)


# --- chance -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("model", "overrides"),
    [("realnvp", []), ("ffjord", ["objective=flow_matching", "solver=none"])],
)
def test_what_is_logged_evaluated_and_drawn_changes_no_weight(
    tiny: Tiny, tmp_path: Path, model: str, overrides: list[str]
) -> None:
    seldom = ("trainer.log_every=100", "trainer.evaluate_every=100", "trainer.figures=false")
    often = (
        "trainer.log_every=1", "trainer.evaluate_every=2", "trainer.figures=true",
        "trainer.draw_every=100", "evaluation.grid=24", "splits.val=32",
    )  # fmt: skip
    for name, asked in (("seldom", seldom), ("often", often)):
        train(tiny("trainer.max_steps=3", *overrides, *asked, model=model), tmp_path / name)
    first, second = last(tmp_path / "seldom"), last(tmp_path / "often")
    assert torch.equal(first["generator"], second["generator"])
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])


# --- failures -----------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], error: Exception | None = None) -> None:
    """Let the loss of some steps be NaN, or raise an error."""

    def build_spoilt_phases(config: Config, flow: Flow) -> list[Phase]:
        (phase,), step = build_phases(config, flow), count(1)

        def spoilt(
            flow: Flow, x: Tensor, generator: torch.Generator, context: Tensor | None = None
        ) -> tuple[Tensor, Scalars]:
            loss, scalars = phase.objective(flow, x, generator, context)
            if next(step) not in steps:
                return loss, scalars
            if error is not None:
                raise error
            return loss * math.nan, scalars

        return [replace(phase, objective=spoilt)]

    monkeypatch.setattr("flowtrain.training.run.build_phases", build_spoilt_phases)


@pytest.mark.parametrize("error", [None, SolverError("the ODE solver gave up")])
def test_a_single_failed_step_is_skipped_and_counted(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    spoil(monkeypatch, {3, 4, 8, 9}, error)
    train(tiny("trainer.max_failures=3"), tmp_path)
    assert result(tmp_path)["status"] == "completed"
    assert result(tmp_path)["skipped_steps"] == 4
    assert weights(tmp_path).isfinite().all()


def test_weights_that_the_evaluation_denies_a_likelihood_end_the_run_and_name_the_best(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = count()

    def denied(*arguments: Any, **options: Any) -> dict[str, float]:
        if next(taken) == 2:
            raise SolverError("the ODE solver gave up")
        return training_metrics(*arguments, **options)

    monkeypatch.setattr(validation, "training_metrics", denied)
    told = r"^step 20 cannot be evaluated: the ODE solver gave up\. .*best\.pt is of step 10$"
    with pytest.raises(TrainingError, match=told):
        train(tiny(), tmp_path)
    assert result(tmp_path)["status"] == "failed"


@pytest.mark.parametrize(("kls", "best"), [([3.0, 1.0, 2.0], 10), ([None, None, 2.0], 20)])
def test_a_reverse_kl_keeps_the_weights_nearest_by_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kls: list[float], best: int
) -> None:
    """An infinite KL is left out of the metrics; the first weights are kept all the same."""
    given = iter(kls)

    def told(*_: Any, **__: Any) -> dict[str, float]:
        kl = next(given)
        return {} if kl is None else {"kl_reverse": kl}

    monkeypatch.setattr(validation, "reverse", told)
    train(tiny("objective=reverse_kl", "trainer.max_steps=20"), tmp_path)
    assert result(tmp_path)["best_step"] == best
    assert checkpoint.read(tmp_path / "checkpoints" / "best.pt")["progress"]["step"] == best


def test_a_skipped_step_leaves_the_weights_alone(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {1, 2})
    run = build_run(tiny("trainer.max_failures=3", "trainer.ema=0.9"), RunFolder(tmp_path))
    before = {name: value.clone() for name, value in run.state.flow.state_dict().items()}
    with Tracker(RunFolder(tmp_path), step=-1, evaluated=-1) as tracker:
        train_step(run, tracker)
        train_step(run, tracker)
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

RECIPES = [
    *((f"experiment={path.stem}",) for path in sorted((CONF / "experiment").glob("*.yaml"))),
    ("experiment=best", "data=rings"),
    ("experiment=best", "data=checkerboard"),
    ("model=ffjord", "objective=flow_matching"),
    ("model=ffjord", "objective=flow_matching_then_likelihood"),
]
BRIEF = (
    "trainer.max_steps=3", "trainer.evaluate_every=3", "trainer.figures=false",
    "trainer.device=cpu", "trainer.threads=1", "evaluation.grid=16",
)  # fmt: skip


DENSITIES = sorted(
    {path.stem for path in (CONF / "data").glob("*.yaml")}
    - {"custom", "sklearn", "table", "unnormalized"}
)
MODELS = [name for section in options(Model) for name in names(section)]
PAIRS = [  # each at least once; all of them are minutes long
    pytest.param(model, data, marks=[] if brief else pytest.mark.slow)
    for model in MODELS
    for data in DENSITIES
    for brief in [model == "realnvp" or data == "moons"]
]


@pytest.mark.parametrize(("model", "data"), PAIRS)
def test_every_model_trains_on_every_density(
    tiny: Tiny, tmp_path: Path, model: str, data: str
) -> None:
    brief = ("trainer.max_steps=3", "evaluation.grid=32")  # 16 nodes may miss a thin density
    result = train(tiny(f"data={data}", *brief, model=model), tmp_path)
    assert (result.status, result.step) == ("completed", 3)
    assert math.isfinite(result.metrics["kl/test"])


@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_every_recipe_trains(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, recipe: tuple[str, ...]
) -> None:
    few = ["splits.train=512", "splits.val=64", "splits.test=64"]
    overrides = [] if recipe[0].startswith("experiment=digits") else few
    config = validate(compose(*recipe, *BRIEF, *overrides))
    result = train(config, tmp_path)
    assert (result.status, result.step) == ("completed", 3)
    assert math.isfinite(result.metrics["nll/test"])
