"""`flowrun plot`: any figure of a run again."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from flowtrain.config.schema import validate
from flowtrain.training.trainer import train

Flowrun = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--dpi", "20", "--grid", "8")


@pytest.mark.parametrize("what", ["density", "paths", "marginals", "curves"])
def test_each_figure_goes_into_the_run_s_folder(
    flowrun: Flowrun, folders: dict[str, Path], what: str
) -> None:
    path = folders["ffjord"] / "figures" / f"{what}.png"
    small, shown = (SMALL[:2], "the training of ") if what == "curves" else (SMALL, "")
    told = flowrun("plot", folders["ffjord"], "--what", what, *small)
    assert told.returncode == 0
    assert told.stderr.startswith(f"flowrun: wrote {path}\nflowrun: it is of {shown}ffjord on ")
    with PIL.Image.open(path) as image:
        assert image.size[0] > 50
    path.unlink()


@pytest.mark.parametrize(
    ("suffix", "begin"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")]
)
def test_a_figure_is_written_as_its_suffix_says(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, suffix: str, begin: bytes
) -> None:
    told = flowrun("plot", folders["realnvp"], "-o", f"figure.{suffix}", *SMALL, "--title", "")
    assert told.stderr.startswith(f"flowrun: wrote figure.{suffix}\n")
    assert (tmp_path / f"figure.{suffix}").read_bytes().startswith(begin)


def test_curves_are_drawn_when_the_table_is_gone(
    flowrun: Flowrun, compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    table = tmp_path / "points.csv"
    np.savetxt(table, np.random.default_rng(0).normal(size=(200, 2)), delimiter=",")
    brief = ("trainer=debug", "trainer.device=cpu", "trainer.max_steps=2", "trainer.figures=false")
    train(
        validate(compose("data=table", f"data.path={table}", "model=affine", *brief)), Path("run")
    )
    table.unlink()
    told = flowrun("plot", "run", "--what", "curves", *SMALL[:2])
    assert told.returncode == 0
    assert told.stderr.startswith("flowrun: wrote run/figures/curves.png\n")


def test_the_resolution_is_what_was_asked_for(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    sizes = []
    for dpi in ("20", "60"):
        flowrun("plot", folders["realnvp"], "--what", "curves", "-o", "a.png", "--dpi", dpi)
        with PIL.Image.open(tmp_path / "a.png") as image:
            sizes.append(image.size)
    assert sizes[1][0] == pytest.approx(3 * sizes[0][0], abs=2)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ("--what", "paths"),
            "--what paths is drawn of a continuous flow of p(x) in the plane, and ",
        ),
        (("--what", "paths"), "is realnvp of 2 columns; choose from density, marginals, curves"),
        (("--columns", "x0"), "--columns are those of --what marginals"),
        (("--columns", "x0", "--what", "curves"), "--columns are those of --what marginals"),
        (("--what", "marginals", "--columns", "a"), "there is no column a; choose from x0, x1"),
        (("--what", "marginals", "--columns", "2"), "there is no column 2; choose from x0, x1"),
        (("--what", "marginals", "--columns", "x0,0"), "--columns: column 'x0' is chosen twice"),
        (("-o", "figure.gif"), "figure.gif: .gif is unknown; use .png, .pdf, .svg"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, options: tuple[str, ...],
    complaint: str,
) -> None:  # fmt: skip
    told = flowrun("plot", folders["realnvp"], *options)
    assert told.returncode == 1
    assert complaint in told.stderr
    assert told.stderr.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--dpi", "99999", "99999 is refused: it should be at most 1200"),
        ("--grid", "2049", "2049 is refused: it should be at most 2048"),
    ],
)
def test_a_picture_that_no_memory_holds_is_refused_in_a_line(
    flowrun: Flowrun, folders: dict[str, Path], option: str, value: str, complaint: str
) -> None:
    told = flowrun("plot", folders["realnvp"], option, value)
    assert told.returncode == 2
    assert complaint in told.stderr
    assert told.stderr.count("\n") == 1


def test_chosen_columns_are_drawn_in_their_order(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    chosen = ("--what", "marginals", "--columns", "x1,0")
    flowrun("plot", folders["realnvp"], *chosen, "-o", "a.svg", *SMALL)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn.index(">x1<") < drawn.index(">x0<")
