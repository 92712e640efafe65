"""`flowrun list`: every run of a folder, newest first, in a terminal's width and in a moment."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.cli.list import header
from flowtrain.runs.lock import locked

Flowrun = Callable[..., subprocess.CompletedProcess[str]]

RUN = Path(__file__).parents[1] / "runs" / "schema_1" / "realnvp"


def make(folder: Path, *, age: float = 0.0, **changes: object) -> Path:
    """Write the record of a finished run, so many seconds old."""
    folder.mkdir(parents=True)
    result = json.loads((RUN / "result.json").read_text()) | changes
    (folder / "result.json").write_text(json.dumps(result))
    shutil.copy(RUN / "metrics.jsonl", folder)
    for file in folder.iterdir():
        os.utime(file, (time.time() - age,) * 2)
    return folder


def test_runs_of_any_depth_are_listed_newest_first(flowrun: Flowrun, tmp_path: Path) -> None:
    make(tmp_path / "outputs" / "day" / "old", age=90_000)
    make(tmp_path / "outputs" / "multirun" / "day" / "time" / "seed=1", age=7300, seed=1)
    failed = make(tmp_path / "outputs" / "new", age=130, status="failed", error="no", metrics={})
    (failed / "metrics.jsonl").unlink()
    os.utime(failed / "result.json", (time.time() - 130,) * 2)
    (tmp_path / "outputs" / "link").symlink_to("new")
    names, *rows = flowrun("list").stdout.splitlines()
    assert names.split() == header({"kl": "KL", "nll": "NLL"})
    assert [row.split()[-1] for row in rows] == [
        "outputs/new", "outputs/multirun/day/time/seed=1", "outputs/day/old",
    ]  # fmt: skip
    assert rows[0].split()[:4] == ["realnvp", "pinwheel", "2", "failed"]
    assert rows[0].split()[5:9] == ["-", "-", "2", "min"]
    assert " 0.9829 " in rows[1]
    assert rows[1].split()[2] == "1"
    assert "  2 h  " in rows[1]
    assert [*rows[2].split()[-3:-1]] == ["25", "h"]
    assert len(flowrun("list", "-n", "2").stdout.splitlines()) == 3


def test_a_run_that_goes_on_is_told_from_a_killed_one(flowrun: Flowrun, tmp_path: Path) -> None:
    run = make(tmp_path / "run", status="running", step=0)
    assert " killed " in flowrun("list", tmp_path).stdout
    with locked(run):
        told = flowrun("list", tmp_path).stdout
    assert " running  " in told
    assert "  6  " in told  # the step of metrics.jsonl, not that of the start


def test_a_table_is_named_by_its_file_and_no_name_reaches_the_terminal_raw(
    flowrun: Flowrun, tmp_path: Path
) -> None:
    config = json.loads((RUN / "result.json").read_text())["config"]
    config["data"] = {"name": "table", "path": "some/wine.csv"}
    make(tmp_path / "a", config=config, model="\x1b[31mred\nline")
    (row,) = flowrun("list", tmp_path).stdout.splitlines()[1:]
    assert row.split()[:3] == [r"\x1b[31mred", "line", "wine"]


def test_replicas_are_one_row_with_their_first_and_last_seed(
    flowrun: Flowrun, tmp_path: Path
) -> None:
    make(tmp_path / "run", seed=3, config={"trainer": {"replicas": 8}})
    assert flowrun("list", tmp_path).stdout.splitlines()[1].split()[2] == "3-10"


@pytest.mark.parametrize(
    "config", [{"trainer": [1], "data": "moons"}, {"trainer": {"replicas": "8", "max_steps": {}}}]
)
def test_a_config_of_wrong_types_is_none(
    flowrun: Flowrun, tmp_path: Path, config: dict[str, object]
) -> None:
    make(tmp_path / "run", config=config)
    for command in ("list", "status"):
        told = flowrun(command, tmp_path / "run")
        assert (told.returncode, told.stderr) == (0, "")
        assert "completed " in told.stdout


def target(folder: Path, metrics: dict[str, float], objective: str = "reverse_kl") -> Path:
    config = json.loads((RUN / "result.json").read_text())["config"]
    return make(folder, metrics=metrics, config=config | {"objective": {"name": objective}})


def test_runs_are_shown_by_what_they_are_judged_by(flowrun: Flowrun, tmp_path: Path) -> None:
    target(tmp_path / "a" / "u1", {"kl/test": 0.5, "kl_reverse/test": 0.25, "elbo/test": 1.5})
    target(tmp_path / "b" / "mine", {"elbo/test": 1.25, "ess/test": 0.5})
    every = {"kl/test": 0.75, "nll/test": 2.5, "kl_reverse/test": 1.0}
    target(tmp_path / "c" / "moons", every, "maximum_likelihood")

    def told(folder: str) -> list[list[str]]:
        names, *rows = flowrun("list", tmp_path / folder).stdout.splitlines()
        return [names.split()[5:-2], *(row.split()[5:-3] for row in rows)]

    assert told("a") == [["KL", "rev.", "KL"], ["0.5000", "0.2500"]]
    assert told("b") == [["ELBO"], ["1.2500"]]
    assert told("c") == [["KL", "NLL"], ["0.7500", "2.5000"]]
    names, *rows = told(".")
    assert names == ["KL", "NLL", "rev.", "KL", "ELBO"]
    assert sorted(rows) == [
        ["-", "-", "-", "1.2500"], ["0.5000", "-", "0.2500", "1.5000"],
        ["0.7500", "2.5000", "1.0000", "-"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [("list nowhere", "nowhere: no such folder"), ("list .", "no run below .: no folder has a")],
)
def test_where_there_is_nothing_one_line_says_so(flowrun: Flowrun, line: str, message: str) -> None:
    told = flowrun(*line.split())
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"flowrun: {message}")


def test_a_thousand_runs_are_listed_without_anything_heavy(tmp_path: Path) -> None:
    for number in range(1000):
        (folder := tmp_path / "outputs" / f"{number}").mkdir(parents=True)
        shutil.copy(RUN / "result.json", folder / "result.json")
        shutil.copy(RUN / "metrics.jsonl", folder / "metrics.jsonl")
    code = (
        "import sys; from flowtrain.cli.flowrun import execute; status = execute(['list']);"
        "heavy = {'torch', 'numpy', 'hydra', 'pydantic', 'yaml'} & {*sys.modules};"
        "print(status, *heavy, file=sys.stderr)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert len(told.stdout.splitlines()) == 1001
    assert told.stderr.split() == ["0"]
