"""`flowrun compare`: a table and a picture over runs."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from flowtrain.cli.compare import print_comparison
from flowtrain.comparison.compare import compare
from flowtrain.comparison.summary import find_runs

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


def test_runs_are_compared_in_a_table_and_a_picture(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    home = folders["realnvp"].parent
    told = flowrun("compare", home, "-o", "table.md", "--figure", "picture.png")
    assert told.returncode == 0
    assert told.stdout.split()[:2] == ["model", "data"]
    for folder in folders.values():
        kl = json.loads((folder / "result.json").read_text())["metrics"]["kl/test"]
        assert f" {kl:.4f} " in told.stdout
    assert (tmp_path / "table.md").read_text().startswith("| model | data |")
    with PIL.Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
    told = flowrun(
        "compare", *folders.values(), "--group-by", "data", "--metric", "nll/val", "-o", "t.csv"
    )
    assert (tmp_path / "t.csv").read_text().startswith("data,nll/val,nll/val standard error,runs,")
    assert "a mean over runs that differ in " in told.stdout


def test_in_a_narrow_terminal_each_row_stands_below_its_settings(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = compare(find_runs([folders["realnvp"].parent]))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "56")
    print_comparison(comparison)
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert lines[0].split() == ["kl/test", "nll/test", "runs", "parameters", "seconds"]
    assert all(len(line) <= 56 for line in lines[: 1 + 2 * len(comparison.rows)])
    for row, (settings, figures) in zip(
        comparison.cells(str), zip(lines[1::2], lines[2::2], strict=False), strict=False
    ):
        assert settings.split() == [
            f"{key}={value}" for key, value in zip(comparison.keys, row, strict=False)
        ]
        assert figures.split() == row[len(comparison.keys) :]
    monkeypatch.setenv("COLUMNS", "200")
    print_comparison(comparison)
    assert "model=" not in capsys.readouterr().out  # a table, as anywhere else
