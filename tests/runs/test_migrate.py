"""Runs of every earlier version are loaded, evaluated, compared and resumed by this one.

The folders schema_<n> hold small runs as version n of the schema wrote them, 6 steps each, and are
never changed.
"""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flowtrain
from flowtrain.comparison.compare import compare
from flowtrain.comparison.summary import find_runs
from flowtrain.config.objective import FlowMatchingThenLikelihood
from flowtrain.config.schema import Config, validate
from flowtrain.config.section import dotted
from flowtrain.densities.density import Density
from flowtrain.errors import CheckpointError, ConfigError
from flowtrain.evaluation.metrics import evaluate
from flowtrain.evaluation.quadrature import TAIL
from flowtrain.runs import checkpoint
from flowtrain.runs.load import SavedRun, open_run
from flowtrain.runs.migrate import SCHEMA, load_config, migrate, migrate_checkpoint, saved_config
from flowtrain.training.trainer import train

HERE = Path(__file__).parent
OLD = sorted(path.parent for path in HERE.glob("schema_*/*/result.json"))
old_run = pytest.mark.parametrize("folder", OLD, ids=lambda path: f"{path.parent.name}-{path.name}")


def recorded(folder: Path) -> dict[str, Any]:
    """Return what the result.json of a run says."""
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def test_runs_of_every_earlier_version_are_kept() -> None:
    kept = {path.name for path in HERE.glob("schema_*")}
    assert kept == {f"schema_{version}" for version in range(SCHEMA)}
    for version in range(SCHEMA):
        assert {run.name for run in (HERE / f"schema_{version}").iterdir()} == {"realnvp", "ffjord"}


@old_run
@pytest.mark.parametrize("name", ["best", "last"])
def test_an_old_run_is_loaded(folder: Path, name: str) -> None:
    flow = flowtrain.load(folder, name)
    parameters = sum(weight.numel() for weight in flow.parameters())
    assert parameters == recorded(folder)["parameters"]
    assert not flow.training
    opened = open_run(folder, name)
    result = recorded(folder)
    assert (opened.step, opened.config.model.name, opened.config.data.name, opened.config.seed) == (
        result["best_step"], result["model"], result["data"], result["seed"],
    )  # fmt: skip


@torch.no_grad()
def kl_as_recorded(run: SavedRun, points: int) -> float:
    """KL by a grid so coarse that it sees another mass than 1: now the mean over what it sees."""
    assert isinstance(run.density, Density)
    nodes, weights = run.density.quadrature(points)
    log_p, log_q = run.density.log_prob(nodes), run.flow.log_prob(nodes.float()).double()
    mass = weights * log_p.exp()
    order = mass.argsort(descending=True)
    inside = order[mass[order].cumsum(0) <= 1 - TAIL]
    return float(mass[inside] @ (log_p - log_q)[inside])


@old_run
def test_an_old_run_evaluates_to_the_metrics_that_it_recorded(folder: Path) -> None:
    run = open_run(folder)
    metrics = evaluate(
        run.flow,
        run.splits,
        training_solver=run.config.training_solver,
        grid=run.config.evaluation.grid,
        batch_size=run.config.evaluation.batch_size,
    )
    known = recorded(folder)["metrics"]
    if "kl/test" in known:
        metrics["kl/test"] = kl = kl_as_recorded(run, run.config.evaluation.grid)
        metrics["kl_error/test"] = abs(kl - kl_as_recorded(run, run.config.evaluation.grid // 2))
    found = {tag: metrics[tag] for tag in known}  # later versions measure more
    assert found == pytest.approx(known, rel=0, abs=1e-5)


def share_of_time(steps: float) -> float:
    """Return what a switch after a fraction of the steps is of the time."""
    return steps / (steps + FlowMatchingThenLikelihood.COST * (1 - steps))


def test_old_runs_are_compared_with_their_configs_known(
    tmp_path: Path, tiny: Callable[..., Config]
) -> None:
    train(tiny("trainer.max_steps=2"), tmp_path / "new")
    runs = find_runs([*OLD, tmp_path])
    keys = ["model", "data", "model.couplings", "splits.train", "objective.switch"]
    comparison = compare(runs, group_by=keys)
    by_keys = {row.values: row.runs[0] for row in comparison.rows}
    first, second = (f"{share_of_time(steps):.12g}" for steps in (0.5, 0.94))
    assert by_keys.keys() == {
        ("realnvp", "pinwheel", "2", "512", "-"),
        ("ffjord", "two_spirals", "-", "512", first),
        ("ffjord", "two_spirals", "-", "512", second),
        ("ffjord", "two_spirals", "-", "512", "0.6"),
        ("realnvp", "gaussian_mixture", "2", "512", "-"),
    }
    # The notes are on the figures of runs that learned for 6 steps, and on those learned alike.
    told = ("of the model's mass lies outside the data's window", "the seed of another run")
    for note in comparison.notes:
        assert any(each in note for each in told)
    for run in runs[: len(OLD)]:
        config = open_run(run.folder).config
        assert dotted(config.model_dump()).items() <= run.config.items()


@old_run
def test_an_old_run_is_compared_by_hydra_s_record_where_it_has_no_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(copied / "checkpoints")
    (without,) = find_runs([copied])
    (whole,) = find_runs([folder])
    assert without.config == whole.config
    assert without.config["splits.val"] == 64


@old_run
def test_an_old_run_is_resumed_and_its_folder_is_of_today_from_there_on(
    folder: Path, tmp_path: Path, history: Callable[[Path], list[dict[str, Any]]]
) -> None:
    copied = shutil.copytree(folder, tmp_path / "run")
    config = open_run(copied, "last").config
    longer = {**config.model_dump(), "trainer": {**config.trainer.model_dump(), "max_steps": 12}}
    result = train(validate(longer), copied)
    assert (result.status, result.step) == ("completed", 12)
    written = recorded(copied)
    assert (written["status"], written["step"]) == ("completed", 12)
    assert load_config(written["config"]) == validate(longer)
    assert_of_today(copied)
    assert [line["step"] for line in history(copied) if "nll/val" in line] == [0, 3, 6, 9, 12]
    assert metrics_of(open_run(copied)) == pytest.approx(result.metrics["nll/test"], abs=1e-5)


def metrics_of(run: Any) -> float:
    """Return the NLL of the test points."""
    with torch.no_grad():
        return -float(run.flow.log_prob(run.splits.test.x).double().mean())


def test_an_old_run_is_resumed_at_the_command_line(
    flowtrain: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    copied = shutil.copytree(HERE / "schema_0" / "ffjord", tmp_path / "run")
    done = flowtrain(f"resume={copied}", "trainer.max_steps=12")
    assert (done.returncode, done.stderr) == (0, "")
    assert recorded(copied)["status"] == "completed"
    assert recorded(copied)["step"] == 12
    assert_of_today(copied)


def test_another_model_is_refused_for_an_old_run_too(tmp_path: Path) -> None:
    copied = shutil.copytree(HERE / "schema_0" / "realnvp", tmp_path / "run")
    config = open_run(copied).config.model_dump()
    other = validate({**config, "model": {**config["model"], "couplings": 3}})
    with pytest.raises(ConfigError, match=r"model\.couplings: the run has 2, this asks for 3"):
        train(other, copied)


def test_a_new_run_starts_from_the_weights_of_an_old_one(tmp_path: Path) -> None:
    old = HERE / "schema_0" / "realnvp"
    config = open_run(old).config.model_dump()
    train(validate({**config, "seed": 5, "init_from": str(old)}), tmp_path)
    started = checkpoint.read(tmp_path / "checkpoints" / "best.pt")
    assert started["progress"]["step"] == 6
    assert started["config"]["init_from"] == str(old)


def test_reading_changes_nothing_in_an_old_folder() -> None:
    for folder in OLD:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        open_run(folder)
        find_runs([folder])[0].config  # noqa: B018
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# --- what is written today ----------------------------------------------------------------------


def assert_of_today(folder: Path) -> None:
    """Hold every checkpoint and the result.json of a run to today's version of the schema."""
    for name in ("best", "last"):
        state = torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)
        assert state["config"]["schema"] == SCHEMA
    assert recorded(folder)["config"]["schema"] == SCHEMA


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_every_checkpoint_and_result_states_today_s_schema(
    tiny: Callable[..., Config], tmp_path: Path, model: str
) -> None:
    train(tiny("trainer.ema=0.9", "trainer.max_steps=2", model=model), tmp_path)
    assert_of_today(tmp_path)


@pytest.mark.parametrize("model", ["realnvp", "glow", "spline", "affine", "ffjord"])
def test_migrating_today_s_config_changes_nothing(tiny: Callable[..., Config], model: str) -> None:
    config = tiny(model=model)
    saved = saved_config(config)
    assert saved["schema"] == SCHEMA
    assert migrate(copy.deepcopy(saved)) == config.model_dump()
    assert load_config(saved) == config


def test_migrating_today_s_checkpoint_changes_its_config_s_version_alone(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("trainer.ema=0.9", "trainer.max_steps=2")
    train(config, tmp_path)
    state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    migrated = migrate_checkpoint(state)
    assert migrated["config"] == config.model_dump()
    assert all(migrated[key] is state[key] for key in state.keys() - {"config"})


# --- newer than today ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [SCHEMA + 1, "next", None])
def test_a_config_of_a_newer_version_is_refused_in_one_line(
    tiny: Callable[..., Config], version: Any
) -> None:
    saved = {**saved_config(tiny()), "schema": version, "novelty": 1}
    for read in (migrate, load_config):
        with pytest.raises(CheckpointError) as caught:
            read(saved)
        assert str(caught.value) == (
            f"this run was written by a newer flowtrain (schema {version}; this one reads up to "
            f"{SCHEMA}): upgrade flowtrain"
        )


def test_a_run_of_a_newer_version_is_refused_in_one_line_and_compared_without_its_config(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("trainer.max_steps=2")
    train(config, tmp_path)
    for name in ("best", "last"):
        path = tmp_path / "checkpoints" / f"{name}.pt"
        state = torch.load(path, weights_only=True)
        state["config"] = {"schema": SCHEMA + 1, "everything": "else"}
        checkpoint.save(path, state)
    result = {**recorded(tmp_path), "config": {"schema": SCHEMA + 1, "everything": "else"}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    for use in (lambda: flowtrain.load(tmp_path), lambda: train(config, tmp_path)):
        with pytest.raises(CheckpointError, match=r"newer flowtrain .* upgrade flowtrain$") as told:
            use()
        assert len(str(told.value).splitlines()) == 1
    (row,) = compare(find_runs([tmp_path])).rows
    assert row.values == ("realnvp", "gaussian_mixture")


# --- what changed between versions --------------------------------------------------------------

NEW_OF_FFJORD = ("features", "scale")
# What every model was before it had a choice.
WAS = {"whitening": "columns", "base": "normal", "components": None}
POOLS = {"name": "drawn", "train": 5, "validation": 6, "test": 7}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"name": "glow", "couplings": 2, "mixing": "lu",
             "elementwise": {"name": "affine", "log_scale_bound": 3.0}},
            {"name": "glow", "couplings": 2, "log_scale_bound": 3.0},
        ),
        (
            {"name": "spline", "couplings": 2, "mixing": "random",
             "elementwise": {"name": "spline", "bins": 8, "bound": 4.0}},
            {"name": "spline", "couplings": 2, "mixing": "random", "bins": 8, "bound": 4.0},
        ),
        ({"name": "affine"}, {"name": "affine"}),
    ],
)  # fmt: skip
def test_version_0_had_what_a_coupling_does_in_a_group_of_its_own(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    saved = {"seed": 3, "pools": POOLS, "model": old}
    before = copy.deepcopy(saved)
    assert migrate(saved) == {
        "seed": 3, "trust_code": False, "model": {**WAS, **new},
        "splits": {"name": "sampled", "train": 5, "val": 6, "test": 7},
        "logger": {"name": "tensorboard"},
    }  # fmt: skip
    assert saved == before


def test_version_0_split_a_table_into_pools() -> None:
    pools = {"name": "split", "validation": 0.1, "test": 0.2, "seed": 3}
    assert migrate({"pools": pools, "model": {"name": "affine"}})["splits"] == {
        "name": "random", "val": 0.1, "test": 0.2, "seed": 3,
    }  # fmt: skip


def test_version_1_wrote_for_tensorboard_alone_and_whitened_columns_apart() -> None:
    assert migrate({"schema": 1, "seed": 3, "model": {"name": "affine"}}) == {
        "seed": 3,
        "logger": {"name": "tensorboard"},
        "model": {"name": "affine", **WAS},
    }


def test_version_2_had_the_standard_normal_law_for_a_base() -> None:
    saved = {"schema": 2, "model": {"name": "affine", "whitening": "johnson"}}
    assert migrate(saved) == {"model": {"name": "affine", **WAS, "whitening": "johnson"}}


def test_version_5_took_categories_by_their_values() -> None:
    table = {"name": "table", "condition": ["year"]}
    since = {"categorical": None, "missing": "refuse"}
    assert migrate({"schema": 5, "data": table})["data"] == {**table, **since}
    assert migrate({"schema": 5, "data": {"name": "iris"}}) == {"data": {"name": "iris"}}


def test_version_1_switched_after_a_fraction_of_the_steps(tiny: Callable[..., Config]) -> None:
    config = tiny("objective=flow_matching_then_likelihood", model="ffjord").model_dump()
    objective = {key: config["objective"][key] for key in ("name", "coupling", "path", "times")}
    model = {key: value for key, value in config["model"].items() if key not in NEW_OF_FFJORD}
    old = {**config, "model": model, "objective": {**objective, "switch": 0.94}}
    old["objective"]["likelihood_lr"] = 0.01
    now = load_config({"schema": 1, **old})
    assert now.model.model_dump() == {**model, "features": None, "scale": None}
    until = share_of_time(0.94)
    assert now.objective.model_dump()["switch"] == pytest.approx(until)
    assert now.objective.done(0.94) == pytest.approx(until)
    assert now.objective.done(0.47) == pytest.approx(until / 2)
