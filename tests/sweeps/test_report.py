"""What a sweep says of its jobs."""

from pathlib import Path

import pytest

from flowtrain.errors import UserError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import write_result
from flowtrain.sweeps.plan import Job, write_record
from flowtrain.sweeps.report import opening, refuse_failures


def end(run: Path, status: str) -> None:
    write_result(
        RunFolder(run), status=status, model="spline", data="moons", seed=0, parameters=1, step=5,
        seconds=1.0, metrics={},
    )  # fmt: skip


def jobs(*states: str) -> list[Job]:
    return [Job((), str(number), state) for number, state in enumerate(states)]


def test_a_new_sweep_says_how_many_jobs_it_has(tmp_path: Path) -> None:
    assert list(opening(tmp_path, jobs("waiting", "waiting"))) == [f"{tmp_path}: 2 jobs"]
    assert list(opening(tmp_path, jobs("waiting"))) == [f"{tmp_path}: 1 job"]
    assert list(opening(tmp_path, jobs("completed", "pruned", "completed"))) == [
        f"{tmp_path}: 3 jobs: 2 completed, 1 pruned; none to run"
    ]
    assert list(opening(tmp_path, jobs(*["waiting"] * 2_000, "failed"))) == [
        f"{tmp_path}: 2,001 jobs: 2,000 waiting, 1 failed; 2,001 to run"
    ]
    assert list(opening(tmp_path, jobs("running", "waiting"))) == [
        f"{tmp_path}: 2 jobs: 1 running, 1 waiting; 1 to run"
    ]


def test_every_job_that_failed_is_named_once_and_how_to_run_it_again(tmp_path: Path) -> None:
    write_record(tmp_path, [], {str(number): [f"seed={number}"] for number in range(8)})
    for number in range(8):
        end(tmp_path / str(number), "completed" if number < 2 else "failed")
    with pytest.raises(UserError) as refused:
        refuse_failures(tmp_path)
    assert str(refused.value) == (
        "6 of 8 jobs did not complete: 2 (failed), 3 (failed), 4 (failed), 5 (failed), 6 (failed) "
        f"and 1 more; run them again: flowtrain -m resume_sweep={tmp_path}"
    )
    for number in range(2, 8):
        end(tmp_path / str(number), "pruned")
    refuse_failures(tmp_path)
