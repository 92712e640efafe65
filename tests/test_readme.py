"""The README's transcript, its output and the Python of README and docs, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flowtrain.cli import flowrun

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
(TRANSCRIPT,) = re.findall(r"<!-- transcript.*?```\n(.*?)```", TEXT, re.DOTALL)
(PYTHON,) = re.findall(r"## From Python\n.*?```python\n(.*?)```", TEXT, re.DOTALL)
MORE_PYTHON = re.findall(r"```python\n(.*?)```", API, re.DOTALL)
(OUTPUT,) = re.findall(r"<!-- output.*?```text\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for line in TRANSCRIPT.splitlines()]
# What makes a training brief; a table has other splits.
BRIEF = (
    "trainer.max_steps=3", "trainer.evaluate_every=3", "trainer.figures=false",
    "trainer.device=cpu",
)  # fmt: skip
FRAMES = ("--frames", "2", "--lines", "120")
FEW = ("splits.train=512", "splits.val=64", "splits.test=64", "evaluation.grid=16")


def labels(output: str) -> set[str]:
    """Return the words in front of the figures of a run's report."""
    return set(re.findall(r"^  (\S.*?)  +\S", output, re.MULTILINE))


def test_transcript_and_python_work_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = ""
    for program, *arguments in COMMANDS:
        if program == "flowrun":  # in this process: importing torch takes longer than most of them
            few = FRAMES if arguments[0] == "animate" else ()
            assert flowrun.execute([*arguments, *few]) == 0, (
                f"{arguments}\n{capsys.readouterr().err}"
            )
            continue
        brief = [*BRIEF, *(() if "data=table" in arguments else FEW)]
        done = subprocess.run(
            [Path(sys.executable).with_name(program), *arguments, *brief],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program} {shlex.join(arguments)}\n{done.stderr}"
        printed += done.stdout
    assert len(labels(OUTPUT)) > 8
    assert labels(OUTPUT) <= labels(printed)
    for code in (PYTHON, *MORE_PYTHON):
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code], check=True,
            env={**os.environ, "MPLBACKEND": "agg"},
        )  # fmt: skip
    names = {path.name for path in tmp_path.iterdir()}
    assert {"points.csv", "scores.csv", "compare.md", "flow.gif"} <= names
    assert {"density.png", "paths.png"} <= names


def test_the_transcript_has_every_command() -> None:
    programs = {tuple(command[:2]) for command in COMMANDS if command[0] == "flowrun"}
    offered = {module.__name__.rpartition(".")[2] for module in flowrun.COMMANDS}
    assert programs == {("flowrun", name) for name in offered}
