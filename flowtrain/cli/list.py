"""`flowrun list`: the runs in a folder, newest first, and how each stands."""

import argparse
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from flowtrain.cli import options as shared
from flowtrain.cli.standings import ABSENT, duration, figure, figures_of, find, print_rows
from flowtrain.errors import UserError
from flowtrain.files import check_folder
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.standing import Standing, standing

SUMMARY = "the runs in a folder, newest first, and how each stands"
TEXTS = ("model", "data", "state", "folder")  # columns that are flush left


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    command.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=Path("outputs"),
        help="with runs at any depth (default: outputs)",
    )  # fmt: skip
    command.add_argument(
        "-n", metavar="ROWS", type=shared.at_least(1), help="the newest ones (default: all)"
    )


def run(options: argparse.Namespace) -> None:
    """Print a row for each run; in a narrow terminal its folder stands on a line below."""
    folder: Path = options.folder
    check_folder(folder)
    found = sorted(((written(run), run) for run in find(folder)), reverse=True)
    if not found:
        raise UserError(f"no run below {folder}: no folder has a result.json")
    now = time.time()
    runs = [(standing(run), now - when) for when, run in found[: options.n]]
    shown = figures_of([run for run, _ in runs])
    rows = [header(shown), *(cells(run, age, shown) for run, age in runs)]
    print_rows(rows, texts=TEXTS, whole=5)


def written(run: Path) -> float:
    """Return when a run wrote its last word, in seconds since 1970."""
    files = [file for file in (RunFolder(run).result, RunFolder(run).metrics) if file.exists()]
    return max(file.stat().st_mtime for file in files or [run])


def header(shown: Mapping[str, str]) -> list[str]:
    """Return the names of the columns, with those of the metrics that are shown.

    >>> header({"kl": "KL"})
    ['model', 'data', 'seed', 'state', 'step', 'KL', 'age', 'folder']
    """
    return ["model", "data", "seed", "state", "step", *shown.values(), "age", "folder"]


def cells(run: Standing, age: float, shown: Iterable[str]) -> list[str]:
    """Return a run's row of the table.

    >>> cells(standing(run_folder), 7200.0, ["kl", "nll"])[:8]
    ['realnvp', 'pinwheel', '0', 'completed', '6', '0.9931', '3.6907', '2 h']
    """
    path = run.setting("data", "path", str)
    data = run.result.get("data", ABSENT) if path is None else Path(path).stem
    columns = run.setting("data", "condition", list) or []
    if condition := run.setting("data", "condition", str) or ", ".join(map(str, columns)):
        data = f"{data} | {condition}"
    return [
        run.result.get("model", ABSENT),
        data,
        seeds(run),
        run.state,
        f"{run.step:,}",
        *(figure(run, name) for name in shown),
        duration(age),
        str(run.folder),
    ]


def seeds(run: Standing) -> str:
    """Return the seed of a run, of replicas the first and the last.

    >>> seeds(standing(run_folder))
    '0'
    """
    first, number = run.result.get("seed"), run.setting("trainer", "replicas", int) or 1
    if first is None:
        return ABSENT
    return f"{first}-{first + number - 1}" if number > 1 else f"{first}"
