"""What tables over runs have alike: where runs lie, their figures, rows that fit the terminal."""

import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from flowtrain.evaluation.tags import JUDGING, telling
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.standing import Standing
from flowtrain.text import one_line

ABSENT = "-"  # in the place of what a run does not have
TITLES = {"kl": "KL", "nll": "NLL", "kl_reverse": "rev. KL", "elbo": "ELBO"}  # of columns


def find(folder: Path) -> Iterator[Path]:
    """Yield the folders of the runs in and below a folder; links are not followed.

    >>> [path.name for path in find(run_folder.parent)] == sorted(["realnvp", "ffjord"])
    True
    """
    if RunFolder(folder).started:
        yield folder
        return
    with os.scandir(folder) as entries:
        below = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    for name in below:
        yield from find(folder / name)


def figures_of(runs: Sequence[Standing]) -> dict[str, str]:
    """Return the metrics that a table over runs shows, those they are judged by, and their titles.

    >>> from flowtrain.runs.standing import standing
    >>> figures_of([standing(run_folder)])
    {'kl': 'KL', 'nll': 'NLL'}
    >>> figures_of([standing(tmp_path)])  # it has none yet
    {'kl': 'KL', 'nll': 'NLL'}
    """
    found = {name for run in runs for name in telling(run.metrics, objective=run.objective)}
    return {name: TITLES[name] for name in JUDGING if name in (found or {"kl", "nll"})}


def figure(run: Standing, name: str) -> str:
    """Return a run's metric by the test points, else by the validation points, or `ABSENT`."""
    for split in ("test", "val"):
        if (value := run.metrics.get(f"{name}/{split}")) is not None:
            return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3g}"
    return ABSENT


def duration(seconds: float) -> str:
    """Write seconds in the largest unit of which there are two.

    >>> duration(100), duration(7200), duration(200_000)
    ('100 s', '2 h', '2 d')
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def print_rows(rows: Sequence[Sequence[str]], *, texts: Collection[str], whole: int) -> None:
    """Print rows in columns, as `laid_out` lays them out for this terminal; a file has no width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in laid_out(rows, width, texts=texts, whole=whole):
        print(line)


def laid_out(
    rows: Sequence[Sequence[str]], width: int | None, *, texts: Collection[str], whole: int
) -> Iterator[str]:
    """Yield the lines of a table; where it is too wide, its last columns stand below each row.

    Args:
        rows: of cells, the first with the names of the columns.
        width: of the terminal; None where there is none.
        texts: names of columns that are flush left, and speak for themselves below a row; numbers
            are flush right, and bear their names there.
        whole: how many columns are always in the row.

    >>> rows = [["state", "step", "KL", "folder"], ["completed", "800", "0.01", "outputs/run"]]
    >>> for line in laid_out(rows, 16, texts=["state", "folder"], whole=2):
    ...     print(line)
    state      step
    completed   800
      KL 0.01  outputs/run
    """
    from rich.cells import cell_len  # which TAB completion need not wait for

    names, *lines = rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    kept = len(names)
    while width is not None and kept > whole and sum(widths[:kept]) + 2 * kept - 2 > width:
        kept -= 1

    def row(cells: Sequence[str]) -> str:
        padded = []
        for name, cell, size in zip(names[:kept], cells, widths, strict=False):
            gap = " " * (size - cell_len(cell))  # a wide letter takes two columns
            padded.append(f"{cell}{gap}" if name in texts else f"{gap}{cell}")
        return "  ".join(padded).rstrip()

    yield row(names)
    for cells in lines:
        yield row(cells)
        below = [
            cell if name in texts else f"{name} {cell}"
            for name, cell in zip(names[kept:], cells[kept:], strict=True)
            if cell not in ("", ABSENT)
        ]
        if below:
            yield f"  {'  '.join(below)}"
