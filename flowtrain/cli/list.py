"""`flowrun list`: the runs in a folder, newest first, and how each stands."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowtrain.cli.status import duration, figure
from flowtrain.errors import UserError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.runs.standing import standing

SUMMARY = "the runs in a folder, newest first, and how each stands"
HEADER = ("model", "data", "seed", "state", "step", "KL", "NLL", "age", "folder")
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
    rows = [cells(run, now - when) for when, run in found[: options.n]]
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


def cells(run: Path, age: float) -> list[str]:
    """Return a run's row of the table.

    >>> cells(run_folder, 7200.0)[:8]
    ['realnvp', 'pinwheel', '0', 'completed', '6', '0.9931', '3.6907', '2 h']
    """
    result, stands = read_result(RunFolder(run)), standing(run)
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
        stands.state,
        f"{stands.step:,}",
        figure(stands, "kl") or "-",
        figure(stands, "nll") or "-",
        duration(age),
        run,
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
    """Lay rows out as a table; where it is wider than a terminal, each folder has its own line.

    Args:
        rows: in the order of `HEADER`.
        width: of the terminal; None where there is none.
    """
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    split = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
    shown = HEADER[:-1] if split else HEADER
    for row in (HEADER, *rows):
        parts = [
            cell.ljust(size) if name in LEFT else cell.rjust(size)
            for name, cell, size in zip(shown, row, widths, strict=False)
        ]
        yield "  ".join(parts).rstrip()
        if split and row is not HEADER:
            yield f"  {row[-1]}"
