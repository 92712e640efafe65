"""`flowrun list`: the runs in a folder, newest first, and how each stands."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowtrain.cli.status import FIGURES, duration, figure, figures_of
from flowtrain.errors import UserError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.runs.standing import Standing, standing

SUMMARY = "the runs in a folder, newest first, and how each stands"
LEFT = ("model", "data", "state", "folder")  # flush left; numbers are flush right


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    command.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=Path("outputs"),
        help="with runs at any depth (default: outputs)",
    )  # fmt: skip
    command.add_argument("-n", metavar="ROWS", type=int, help="the newest ones (default: all)")


def run(options: argparse.Namespace) -> None:
    """Print a line for each run; in a narrow terminal its folder stands on a line below."""
    folder: Path = options.folder
    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file, no folder' if folder.exists() else 'no such folder'}")
    found = sorted(((written(run), run) for run in find(folder)), reverse=True)
    if not found:
        raise UserError(f"no run below {folder}: no folder has a result.json")
    now = time.time()
    runs = [(standing(run), now - when) for when, run in found[: options.n]]
    shown = figures_of([run for run, _ in runs])
    rows = [header(shown), *(cells(run, age, shown) for run, age in runs)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines(rows, width):
        print(line)


def find(folder: Path) -> Iterator[Path]:
    """Yield the folders of the runs in and below a folder; links are not followed.

    >>> [path.name for path in find(run_folder.parent)] == sorted(["realnvp", "ffjord"])
    True
    """
    if (folder / "result.json").exists() or (folder / ".hydra").is_dir():
        yield folder
        return
    with os.scandir(folder) as entries:
        below = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    for name in below:
        yield from find(folder / name)


def written(run: Path) -> float:
    """Return when a run wrote its last word, in seconds since 1970."""
    files = [file for file in (RunFolder(run).result, RunFolder(run).metrics) if file.exists()]
    return max(file.stat().st_mtime for file in files or [run])


def header(shown: Sequence[str]) -> list[str]:
    """Return the names of the columns, with those of the metrics that are shown.

    >>> header(["kl", "nll"])
    ['model', 'data', 'seed', 'state', 'step', 'KL', 'NLL', 'age', 'folder']
    """
    figures = (FIGURES[name] for name in shown)
    return ["model", "data", "seed", "state", "step", *figures, "age", "folder"]


def cells(run: Standing, age: float, shown: Sequence[str]) -> list[str]:
    """Return a run's row of the table.

    >>> cells(standing(run_folder), 7200.0, ["kl", "nll"])[:8]
    ['realnvp', 'pinwheel', '0', 'completed', '6', '0.9931', '3.6907', '2 h']
    """
    result = read_result(RunFolder(run.folder))
    settings: dict[str, Any] = (result.get("config") or {}).get("data") or {}
    path = settings.get("path")
    data = Path(path).stem if isinstance(path, str) else result.get("data", "-")
    if condition := settings.get("condition"):  # a word, or columns of a table
        names = condition if isinstance(condition, list) else [condition]
        data = f"{data} | {', '.join(map(str, names))}"
    row = [
        result.get("model", "-"),
        data,
        seeds(result),
        run.state,
        f"{run.step:,}",
        *(figure(run, name) or "-" for name in shown),
        duration(age),
        run.folder,
    ]
    return ["".join(c if c.isprintable() else "?" for c in str(cell)) for cell in row]


def seeds(result: dict[str, Any]) -> str:
    """Return the seed that a result.json names, of replicas the first and the last.

    >>> seeds({"seed": 3}), seeds({"seed": 3, "config": {"trainer": {"replicas": 8}}})
    ('3', '3-10')
    """
    first = result.get("seed", "-")
    number = ((result.get("config") or {}).get("trainer") or {}).get("replicas", 1)
    return f"{first}-{first + number - 1}" if number != 1 and first != "-" else str(first)


def lines(rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Lay rows out as a table; where it is wider than a terminal, each folder stands below its row.

    Where that is not enough, the age stands below, too.

    Args:
        rows: of cells, the first with the names of the columns.
        width: of the terminal; None where there is none.
    """
    names = rows[0]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    kept = len(names)
    while width is not None and kept > len(names) - 2 and sum(widths[:kept]) + 2 * kept - 2 > width:
        kept -= 1
    for row in rows:
        parts = [
            cell.ljust(size) if name in LEFT else cell.rjust(size)
            for name, cell, size in zip(names[:kept], row, widths, strict=False)
        ]
        yield "  ".join(parts).rstrip()
        if row[kept:] and row is not names:
            yield f"  {'  '.join(row[kept:])}"
