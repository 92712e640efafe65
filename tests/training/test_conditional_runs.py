"""Runs of p(x | c): every model learns one, and its folder holds all that is needed afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flowtrain
from flowtrain.config.model import Model
from flowtrain.config.schema import Config
from flowtrain.config.section import names, options
from flowtrain.densities.density import Density
from flowtrain.errors import CheckpointError, ConfigError
from flowtrain.evaluation.metrics import evaluate
from flowtrain.runs import checkpoint
from flowtrain.runs.load import open_run
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]
GIVEN = "data.condition=component"
MODELS = sorted(name for section in options(Model) for name in names(section))


def metrics_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return dict(content["metrics"])


@pytest.fixture(scope="module")
def run_folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditional") / "run"
    train(tiny(GIVEN, "trainer.figures=true", "trainer.max_steps=10"), folder)
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_every_model_learns_what_is_given(
    model: str, tiny: Tiny, tmp_path: Path, history: Callable[[Path], list[dict[str, Any]]]
) -> None:
    own = {"ffjord": ["trainer.max_steps=4"], "normflows": ["model.flow=maf"]}.get(model, [])
    after = train(tiny(GIVEN, "optimizer.lr=0.01", *own, model=model), tmp_path).metrics
    before = next(line["nll/val"] for line in history(tmp_path) if "nll/val" in line)
    assert after["nll/val"] < before
    kl = [after[f"kl/component={index}"] for index in range(3)]
    assert after["kl/test"] == pytest.approx(0.3 * kl[0] + 0.3 * kl[1] + 0.4 * kl[2])


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=flow_matching", "solver=none"],
        ["objective=flow_matching", "solver=none", "objective.targets=sample",
         "objective.coupling=optimal_transport"],
        ["objective=flow_matching_then_likelihood", "solver.rtol=1e-3", "solver.atol=1e-3"],
        ["objective=reverse_kl"],
        ["solver.adjoint=true"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_objective_trains_on_conditions(
    overrides: list[str], tiny: Tiny, tmp_path: Path
) -> None:
    found = train(tiny(GIVEN, *overrides, "trainer.max_steps=3", model="ffjord"), tmp_path)
    assert found.step == 3
    assert {f"kl/component={index}" for index in range(3)} <= found.metrics.keys()


@pytest.mark.parametrize(("name", "interval"), [("rotation", "0,1.5"), ("noise", "0.2,0.4")])
def test_a_condition_on_the_line_is_averaged_over_its_interval(
    name: str, interval: str, tiny: Tiny, tmp_path: Path
) -> None:
    given = ["data=rings", f"data.condition={name}", f"data.interval=[{interval}]"]
    found = train(tiny(*given, "trainer.max_steps=10"), tmp_path).metrics
    cases = [tag for tag in found if tag.startswith(f"kl/{name}=")]
    assert len(cases) == 8
    assert min(found[tag] for tag in cases) < found["kl/test"] < max(found[tag] for tag in cases)
    run = open_run(tmp_path)
    assert run.condition is not None
    at = run.given(run.condition.encode({name: 0.3}))
    assert at.name == f"realnvp on rings, {name}=0.3"
    assert at.density is not None


def test_the_folder_is_enough_to_load_and_evaluate_it(run_folder: Path) -> None:
    run = open_run(run_folder)
    assert str(run.condition) == "component (0, 1 or 2)"
    assert (run.flow.context_dim, run.density) == (3, None)
    again = evaluate(run.flow, run.splits, training_solver=None, grid=16, batch_size=4096)
    assert again == pytest.approx(metrics_of(run_folder), abs=1e-6)
    flow = flowtrain.load(run_folder)
    with pytest.raises(ValueError, match="context is needed"):
        flow.sample(5)
    assert flow.sample(5, context=torch.tensor([0.0, 1.0, 0.0])).shape == (5, 2)
    drawn = {path.name for path in (run_folder / "figures").iterdir()}
    assert {"conditions-final.png", "curves-final.png"} <= drawn


def test_a_run_at_one_condition_is_one_of_p_of_x(run_folder: Path) -> None:
    run = open_run(run_folder)
    assert run.condition is not None
    context = run.condition.encode({"component": "1"})
    at = run.given(context)
    assert (at.flow.context_dim, at.name) == (0, "realnvp on gaussian_mixture, component=1")
    assert isinstance(at.density, Density)
    x = at.splits.test.x
    assert (len(x), at.splits.test.context) == (64, None)
    found = evaluate(at.flow, at.splits, training_solver=None, grid=64, batch_size=4096)
    assert found["kl/test"] == pytest.approx(metrics_of(run_folder)["kl/component=1"], abs=0.05)
    torch.testing.assert_close(at.flow.log_prob(x), run.flow.log_prob(x, context.float()))


def test_an_interrupted_run_goes_on_bit_for_bit(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(GIVEN, "trainer.max_steps=8", "scheduler=constant"), tmp_path / "constant")
    train(tiny(GIVEN, "trainer.max_steps=4", "scheduler=constant"), tmp_path / "broken")
    train(tiny(GIVEN, "trainer.max_steps=8", "scheduler=constant"), tmp_path / "broken")
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "constant")
    with pytest.raises(ConfigError, match=r"data\.condition: the run has 'component', this asks"):
        train(tiny("trainer.max_steps=9"), tmp_path / "broken")


def test_a_damaged_condition_is_told(run_folder: Path, tmp_path: Path) -> None:
    state = checkpoint.read(run_folder / "checkpoints" / "best.pt")
    state["config"] = {"schema": 3, **state["config"]}
    for broken in ([{"name": "component"}], "component", [{"name": "component", "values": ["0"]}]):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        checkpoint.save(tmp_path / "checkpoints" / "best.pt", {**state, "condition": broken})
        with pytest.raises(CheckpointError, match=r"condition|weights do not fit"):
            open_run(tmp_path)


def test_a_density_without_components_is_refused_in_one_line(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data: this density has no components to be given"):
        train(tiny("data=swissroll", GIVEN), tmp_path)
