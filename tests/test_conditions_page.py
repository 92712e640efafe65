"""The page on conditions: its commands and its Python, on a table with a kind and a number."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowtrain.cli import flowrun

PAGE = (Path(__file__).parents[1] / "docs" / "conditions.md").read_text(encoding="utf-8")
(TRANSCRIPT,) = re.findall(r"<!-- transcript.*?```\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BRIEF = ("trainer.max_steps=20", "trainer.evaluate_every=10", "trainer.figures=false",
         "model.hidden=8", "trainer.device=cpu", "trainer.threads=1")  # fmt: skip

Command = Callable[..., subprocess.CompletedProcess[str]]


def animals(path: Path, n: int = 600) -> None:
    """Write a table of animals: height and weight by species and age."""
    rng = np.random.default_rng(0)
    species = rng.choice(["cat", "dog", "fox"], n)
    age = rng.uniform(1, 12, n)
    size = np.select([species == "cat", species == "dog"], [3.0, 9.0], 6.0)
    height = rng.normal(size + 0.2 * age, 0.5)
    weight = rng.normal(2 * size - height, 0.3 * size)
    rows = zip(species, age, height, weight, strict=True)
    lines = [f"{s},{a:.3f},{h:.5f},{w:.5f}" for s, a, h, w in rows]
    path.write_text("\n".join(["species,age,height,weight", *lines]), encoding="utf-8")


def test_the_page_works_as_written(
    flowtrain: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    animals(tmp_path / "animals.csv")
    told = {}
    for line in TRANSCRIPT.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program == "flowtrain":
            done = flowtrain(*arguments, *BRIEF)
            assert done.returncode == 0, done.stderr
            told[program] = done.stdout
            continue
        assert flowrun.execute(arguments) == 0, line
        told[arguments[0]] = "".join(capsys.readouterr())
    given = r"given of each point: species \(cat, dog or fox\), age \(a number, 1.* in training\)"
    assert re.search(given, told["flowtrain"])
    assert "    linear Gaussian" in told["flowtrain"]
    assert "kernel density" not in told["flowtrain"]
    assert "species=cat" in told["diagnose"]
    assert re.search(r"age>=\d", told["diagnose"])
    header, *rows = Path("scores.csv").read_text().splitlines()
    assert header == "height,weight,species,age,log_prob"
    assert len(rows) == 1000
    assert {tuple(row.split(",")[2:4]) for row in rows} == {("cat", "4.0")}
    names: dict[str, object] = {}
    for block in PYTHON:
        exec(block.replace("seconds=1", "overrides=BRIEF[:3]"), {**names, "BRIEF": BRIEF}, names)
