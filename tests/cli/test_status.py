"""`flowrun status`: every job of a sweep, at work or not."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.cli import status
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.result import write_result
from flowtrain.runs.standing import standing
from flowtrain.sweeps.plan import write_record

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


def report(run: Path, state: str, *, step: int = 0, **more: object) -> None:
    write_result(
        RunFolder(run), status=state, model="spline", data="moons", seed=0, parameters=1, step=step,
        seconds=float(step), metrics=more.pop("metrics", {}),
        config={"trainer": {"max_steps": 100}}, **more,
    )  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Return a sweep whose jobs stand in every way; a job 10 is listed after a job 2."""
    names = ["0-seed=0", "1-[b]", "2-seed=2", "10-seed=10"]
    write_record(tmp_path, ["seed=0,1,2,10"], {name: [name] for name in names})
    report(tmp_path / names[0], "completed", step=100, metrics={"kl/test": 0.25, "nll/test": 2.5})
    report(tmp_path / names[1], "failed", step=7, error="the loss is nan\ntry a lower lr")
    report(tmp_path / names[2], "running")
    lines = [
        {"step": 20, "seconds": 2.0, "nll/val": 3.0, "kl/val": 0.75},
        {"step": 25, "seconds": 2.5, "loss": 3.1},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / names[2] / "metrics.jsonl").write_text(text + '{"step": 30, "sec')
    return tmp_path


def test_every_job_is_listed_with_its_state_its_figures_and_where_it_runs(
    flowrun: Flowrun, sweep: Path
) -> None:
    with locked(sweep / "2-seed=2"):
        told = flowrun("status", sweep)
    assert (told.returncode, told.stderr) == (0, "")
    header, *rows, total = told.stdout.splitlines()
    assert header.split() == ["state", "step", "of", "KL", "NLL", "left", "job", "where,", "why"]
    assert rows[0].split() == ["completed", "100", "100", "0.2500", "2.5000", "-", "0-seed=0"]
    assert rows[1].split() == [
        "failed",
        "7",
        "100",
        "-",
        "-",
        "-",
        "1-[b]",
        "the",
        "loss",
        "is",
        "nan",
    ]
    assert rows[2].split()[:8] == ["running", "25", "100", "0.7500", "3.0000", "8", "s", "2-seed=2"]
    assert rows[2].split()[8:11] == ["process", str(os.getpid()), "on"]
    assert rows[3].split() == ["waiting", "0", "-", "-", "-", "-", "10-seed=10"]
    assert total == "4 jobs: 1 failed, 1 running, 1 waiting, 1 completed; 33% of the steps"


def test_a_target_without_points_is_shown_by_its_elbo(flowrun: Flowrun, tmp_path: Path) -> None:
    report(tmp_path / "seed=0", "running")
    line = {"step": 20, "seconds": 2.0, "elbo/val": -1.5, "ess/val": 0.5}
    (tmp_path / "seed=0" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    header, row, _ = flowrun("status", tmp_path).stdout.splitlines()
    assert header.split()[:5] == ["state", "step", "of", "ELBO", "left"]
    assert row.split() == ["killed", "20", "100", "-1.5000", "-", "seed=0"]


def test_what_runs_by_its_word_alone_is_killed(sweep: Path) -> None:
    run = standing(sweep / "2-seed=2")
    assert (run.state, run.owner, run.step) == ("killed", "", 25)


def test_watch_ends_with_the_last_job(
    flowrun: Flowrun, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        assert seconds == 3
        for name in ("2-seed=2", "10-seed=10"):
            report(sweep / name, "completed", step=100)

    monkeypatch.setattr(time, "sleep", sleep)
    told = flowrun("status", sweep, "--watch", "--every", "3")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        "4 jobs: 1 failed, 1 killed, 1 waiting, 1 completed; 33% of the steps",
        "4 jobs: 1 failed, 3 completed; 77% of the steps",
    ]


def test_a_screen_holds_what_needs_an_eye_first(sweep: Path) -> None:
    table = status.moving_table(status.look(sweep), height=8)
    assert [*map(str, table.columns[0].cells)] == ["failed", "killed"]
    assert str(table.caption).startswith("4 jobs: ")


def test_a_single_run_stands_too_and_other_folders_are_refused(
    flowrun: Flowrun, sweep: Path, tmp_path: Path
) -> None:
    assert "completed" in flowrun("status", sweep / "0-seed=0").stdout
    (tmp_path / "empty").mkdir()
    for folder, problem in (
        ("empty", "no sweep's folder: it holds no job"),
        ("nowhere", "no such"),
    ):
        told = flowrun("status", folder)
        assert told.returncode == 1
        assert told.stderr.startswith(f"flowrun: {folder}: {problem}")


def test_what_lies_deeper_is_counted_and_what_shows_it_named(
    flowrun: Flowrun, tmp_path: Path
) -> None:
    top = tmp_path / "my outputs"
    report(top / "day" / "a", "completed")
    report(top / "multirun" / "day" / "time" / "seed=0", "completed")
    report(top / "multirun" / "day" / "time" / "seed=1", "failed")
    hint = f"lie deeper: flowrun list '{top}'\n"
    told = flowrun("status", top)
    assert told.stderr == f"flowrun: {top}: no sweep's folder: it holds no job; 3 runs {hint}"
    report(top / "replicas", "completed")
    report(top / "replicas" / "replica-0", "completed")
    assert flowrun("status", top).stdout.endswith(
        f"1 completed; 100% of the steps\n3 more runs {hint}"
    )
    assert flowrun("status", top / "replicas").stdout.endswith("; 100% of the steps\n")
    assert flowrun("status", top / "day").stdout.endswith("; 100% of the steps\n")


def test_a_run_that_was_cut_off_at_its_start_is_waited_for_by_nobody(
    flowrun: Flowrun, tmp_path: Path
) -> None:
    (record := tmp_path / "run" / ".hydra").mkdir(parents=True)
    (record / "overrides.yaml").write_text("[]")
    told = flowrun("status", tmp_path, "--watch")
    assert told.stdout == "1 job: 1 never began; 0% of the steps\n"
    told = flowrun("status", tmp_path / "run")
    row, total = told.stdout.splitlines()[1:]
    assert row.split() == ["never", "began", "0", "-", "-", "-", "-", "run"]
    assert total == "1 job: 1 never began; 0% of the steps"
    assert "  never began  " in flowrun("list", tmp_path).stdout
    told = flowrun("evaluate", tmp_path / "run")
    assert told.stderr.endswith("best.pt: the run never began; start it again\n")


def test_it_does_not_wait_for_torch(sweep: Path) -> None:
    code = (
        "import sys; from flowtrain.cli.flowrun import execute;"
        f"code = execute(['status', {str(sweep)!r}]);"
        "sys.exit(code or 'torch' in sys.modules or 'hydra' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
