"""The README's transcript and its Python, typed as written, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
(TRANSCRIPT,) = re.findall(r"<!-- transcript.*?```\n(.*?)```", TEXT, re.DOTALL)
(PYTHON,) = re.findall(r"## From Python\n\n```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for line in TRANSCRIPT.splitlines()]
# What makes a training brief; a table has other splits.
BRIEF = (
    "trainer.max_steps=3", "trainer.evaluate_every=3", "trainer.figures=false",
    "evaluation.grid=16", "trainer.device=cpu",
)  # fmt: skip
FEW = ("splits.train=512", "splits.val=64", "splits.test=64")


def test_transcript_and_python_work_as_written(tmp_path: Path) -> None:
    for program, *arguments in COMMANDS:
        command: list[str | Path] = [Path(sys.executable).with_name(program), *arguments]
        if program == "flowtrain":
            command += [*BRIEF, *(() if "data=table" in arguments else FEW)]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, f"{program} {shlex.join(arguments)}\n{done.stderr}"
    subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=tmp_path, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
    )  # fmt: skip
    names = {path.name for path in tmp_path.iterdir()}
    assert {"samples.npy", "points.csv", "scores.csv", "compare.md", "flow.gif"} <= names
    assert "density.png" in names


def test_the_transcript_has_every_command() -> None:
    programs = {tuple(command[:2]) for command in COMMANDS if command[0] == "flowrun"}
    assert programs == {
        ("flowrun", name) for name in ("evaluate", "sample", "score", "compare", "animate")
    }
