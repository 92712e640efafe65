"""How a run stands, by what it left."""

import json
import math
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


def test_the_newest_lines_of_a_long_history_count(begun: Path) -> None:
    lines = [json.dumps({"step": step, "seconds": step / 10}) for step in range(5_000)]
    lines[4_990] = '{"step": 4990, "kl/val": 0.25, "nll/val": null}'
    RunFolder(begun).metrics.write_text("\n".join([*lines, "[1]", "no json"]))
    run = standing(begun)
    assert (run.step, run.seconds, run.metrics["kl/val"], run.done) == (4_999, 499.9, 0.25, 1.0)
    assert run.metrics["nll/val"] == 2.5  # the last that was a number
