"""How a run stands, by what it left."""

import json
import math
import os
from pathlib import Path

import pytest

from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.result import write_result
from flowtrain.runs.standing import standing, state_of


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """Return the folder of a run that says that it runs."""
    write_result(
        RunFolder(tmp_path), status="running", model="spline", data="moons", seed=0, parameters=1,
        step=10, seconds=5.0, metrics={"kl/val": 0.5, "nll/val": 2.5},
        config={"trainer": {"max_steps": 100}, "objective": {"name": "reverse_kl"}},
    )  # fmt: skip
    return tmp_path


def test_a_run_without_a_process_is_killed(begun: Path) -> None:
    with locked(begun):
        assert (state_of(begun), standing(begun).seconds_left) == ("running", 45.0)
    assert standing(begun).objective == "reverse_kl"
    assert state_of(begun) == "killed"
    assert math.isnan(standing(begun).seconds_left)


def end(run: Path, status: str, *, step: int) -> None:
    write_result(
        RunFolder(run), status=status, model="spline", data="moons", seed=0, parameters=1,
        step=step, seconds=7.0, metrics={"kl/val": 0.5}, config={"trainer": {"max_steps": 200}},
    )  # fmt: skip


@pytest.mark.parametrize("status", ["interrupted", "failed", "completed"])
@pytest.mark.parametrize("step", [147, 50])  # 50: of the last checkpoint, from which it goes on
def test_a_run_that_has_ended_stands_where_its_result_says(
    tmp_path: Path, status: str, step: int
) -> None:
    end(tmp_path, status, step=step)
    RunFolder(tmp_path).metrics.write_text('{"step": 100, "seconds": 5.0, "kl/val": 0.75}\n')
    run = standing(tmp_path)
    assert (run.state, run.step, run.seconds) == (status, step, 7.0)
    assert run.metrics == {"kl/val": 0.5}
    assert run.done == (1.0 if status == "completed" else step / 200)


def test_a_run_that_goes_on_stands_at_the_later_of_result_and_history(tmp_path: Path) -> None:
    history = RunFolder(tmp_path).metrics
    end(tmp_path, "running", step=147)
    history.write_text('{"step": 100, "seconds": 5.0, "kl/val": 0.75}\n')
    with locked(tmp_path):
        assert (standing(tmp_path).step, standing(tmp_path).metrics["kl/val"]) == (147, 0.5)
        history.write_text('{"step": "x"}\n{"step": 150, "seconds": 8.0, "kl/val": 0.25}\n')
        assert (standing(tmp_path).step, standing(tmp_path).metrics["kl/val"]) == (150, 0.25)
    assert (standing(tmp_path).state, standing(tmp_path).step) == ("killed", 150)


def test_a_start_that_was_cut_off_waits_only_in_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "seed=0"
    run.mkdir()
    assert standing(run).state == "never began"
    record = tmp_path / "sweep.json"
    record.write_text('{"arguments": [], "jobs": {"seed=1": []}}')  # another's
    assert standing(run).state == "never began"
    record.write_text('{"arguments": [], "jobs": {"seed=1": [], "seed=0": []}, "more": 1}')
    os.utime(record, ns=(0, 0))
    assert standing(run).state == "waiting"
    monkeypatch.chdir(run)
    assert standing(Path()).state == "waiting"
    with locked(run):
        assert standing(run).state == "running"
    for number, damaged in enumerate(("{", "[]", '{"jobs": 1}')):
        record.write_text(damaged)
        os.utime(record, ns=(0, 10**9 * (number + 1)))
        assert standing(run).state == "never began"


def test_the_newest_lines_of_a_long_history_count(begun: Path) -> None:
    lines = [json.dumps({"step": step, "seconds": step / 10}) for step in range(5_000)]
    lines[4_990] = '{"step": 4990, "kl/val": 0.25, "nll/val": null}'
    RunFolder(begun).metrics.write_text("\n".join([*lines, "[1]", "no json"]))
    run = standing(begun)
    assert (run.step, run.seconds, run.metrics["kl/val"], run.done) == (4_999, 499.9, 0.25, 1.0)
    assert run.metrics["nll/val"] == 2.5  # the last that was a number


@pytest.mark.parametrize(
    "damaged", [{"kl/val": "abc"}, {"seconds": None}, {"seconds": "long"}, {"nll/val": 10**400}]
)
def test_a_damaged_line_of_the_history_counts_for_nothing(
    begun: Path, damaged: dict[str, object]
) -> None:
    lines = [{"step": 20, "seconds": 9.0, "kl/val": 0.25}, {"step": 30, "seconds": 9.5, **damaged}]
    RunFolder(begun).metrics.write_text("\n".join(map(json.dumps, lines)))
    run = standing(begun)
    assert (run.step, run.seconds, run.metrics["kl/val"]) == (20, 9.0, 0.25)
