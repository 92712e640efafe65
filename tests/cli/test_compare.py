"""`flowrun compare`: a table and a picture over runs."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import PIL.Image

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
