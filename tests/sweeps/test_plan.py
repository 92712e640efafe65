"""Which jobs of a sweep run again."""

from pathlib import Path

import pytest

from flowtrain.errors import UserError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.result import write_result
from flowtrain.runs.standing import state_of
from flowtrain.sweeps.plan import Job, plan, read_jobs, read_record, write_record

ASKED = [["model=spline", f"seed={seed}", "trainer.max_steps=5"] for seed in range(6)]
NAMES = [f"{seed}-seed={seed}" for seed in range(6)]


def end(run: Path, status: str) -> None:
    write_result(
        RunFolder(run), status=status, model="spline", data="moons", seed=0, parameters=1, step=5,
        seconds=1.0, metrics={},
    )  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Return the folder of a sweep whose jobs stand in every way they can."""
    write_record(tmp_path, ["seed=range(6)"], dict(zip(NAMES, ASKED, strict=True)))
    ends = ("completed", "failed", "interrupted", "running", "pruned")
    for name, status in zip(NAMES, ends, strict=False):
        end(tmp_path / name, status)
    return tmp_path


def test_only_what_has_not_ended_runs_again(sweep: Path) -> None:
    jobs = plan(sweep, ASKED)
    assert [job.name for job in jobs] == NAMES
    assert [job.state for job in jobs] == [
        "completed", "failed", "interrupted", "killed", "pruned", "waiting",
    ]  # fmt: skip
    assert [job.to_run for job in jobs] == [False, True, True, True, False, True]


def test_a_job_at_work_is_left_alone(sweep: Path) -> None:
    with locked(sweep / NAMES[3]):
        assert state_of(sweep / NAMES[3]) == "running"
        assert not plan(sweep, ASKED)[3].to_run
    assert state_of(sweep / NAMES[3]) == "killed"


def test_a_sweep_may_grow_and_be_asked_for_more_steps(sweep: Path) -> None:
    jobs = plan(sweep, [*ASKED, ["model=spline", "seed=6", "trainer.max_steps=5"]])
    assert (jobs[6].name, jobs[6].to_run) == (None, True)
    longer = [[model, seed, "trainer.max_steps=9", "launcher=joblib"] for model, seed, _ in ASKED]
    jobs = plan(sweep, longer)
    assert [job.name for job in jobs] == NAMES
    assert (jobs[0].state, jobs[0].to_run) == ("changed", True)
    elsewhere = [[*overrides, "launcher=joblib", "sweep=grid"] for overrides in ASKED]
    assert not plan(sweep, elsewhere)[0].to_run


def test_steps_that_are_swept_tell_jobs_apart(tmp_path: Path) -> None:
    asked = [[f"trainer.max_steps={steps}"] for steps in (5, 10)]
    write_record(tmp_path, ["trainer.max_steps=5,10"], {"0": asked[0], "1": asked[1]})
    end(tmp_path / "0", "completed")
    assert [(job.name, job.to_run) for job in plan(tmp_path, asked)] == [("0", False), ("1", True)]
    with pytest.raises(UserError, match="holds another sweep"):
        plan(tmp_path, [["trainer.max_steps=20"]])


def test_another_table_is_another_sweep(tmp_path: Path) -> None:
    write_record(tmp_path, ["data.path=a.csv"], {"0": ["data.path=a.csv"]})
    with pytest.raises(UserError, match="holds another sweep"):
        plan(tmp_path, [["data.path=b.csv"]])


def test_the_folder_of_another_sweep_is_refused_in_one_line(sweep: Path) -> None:
    with pytest.raises(UserError) as refused:
        plan(sweep, ASKED[1:])
    assert str(refused.value) == (
        f"{sweep} holds another sweep: 0-seed=0 is not among the jobs asked for; give this one a "
        "folder of its own by hydra.sweep.dir"
    )
    with pytest.raises(UserError, match="holds another sweep"):
        plan(sweep, [["model=glow", *rest] for _, *rest in ASKED])


def test_a_sweep_of_an_earlier_release_is_known_by_its_jobs_own_records(tmp_path: Path) -> None:
    record = tmp_path / "0-seed=0" / ".hydra" / "overrides.yaml"
    record.parent.mkdir(parents=True)
    record.write_text("- seed=0\n- model=spline\n")
    end(tmp_path / "0-seed=0", "completed")
    assert plan(tmp_path, [["seed=0", "model=spline"], ["seed=1", "model=spline"]]) == [
        Job(("seed=0", "model=spline"), "0-seed=0", "completed"),
        Job(("seed=1", "model=spline"), None, "waiting"),
    ]


DAMAGED = {
    "cut": '{"jobs": {',
    "a list": "[]",
    "no jobs": '{"arguments": []}',
    "no texts": '{"arguments": [], "jobs": {"0": [1]}}',
    "above": '{"arguments": [], "jobs": {"../elsewhere": []}}',
    "absolute": '{"arguments": [], "jobs": {"/etc": []}}',
    "the sweep itself": '{"arguments": [], "jobs": {".": []}}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=r"sweep\.json is damaged: "):
        read_jobs(tmp_path)


def test_a_folder_without_a_record_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no folder of a sweep: it has no sweep\.json"):
        read_record(tmp_path)
    with pytest.raises(UserError, match="nowhere is not there"):
        read_record(tmp_path / "nowhere")
