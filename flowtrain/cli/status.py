"""`flowrun status`: how every job of a sweep stands, and where it runs."""

import argparse
import math
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.cli.standings import ABSENT, duration, figure, figures_of, find, print_rows
from flowtrain.errors import UserError
from flowtrain.files import check_folder
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.standing import Standing, standing
from flowtrain.text import amount, one_line

if TYPE_CHECKING:
    from rich.table import Table

SUMMARY = "how every job of a sweep stands, and where it runs"
EVERY = 2  # seconds between two looks
TEXTS = ("state", "job", "where, why")  # columns that are flush left
LONGEST_REASON = 80  # letters; the run's log and the comparison have the rest
# What needs an eye comes first in a list that moves.
URGENCY = (
    "failed", "killed", "never began", "interrupted", "running", "waiting", "pruned", "completed",
)  # fmt: skip


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    command.add_argument("sweep", metavar="SWEEP", type=Path, help="the folder of a sweep or a run")
    command.add_argument(
        "--watch", action="store_true",
        help="keep it up to date until every job has ended, or Ctrl-C",
    )  # fmt: skip
    command.add_argument(
        "--every", metavar="SECONDS", type=shared.at_least(1),
        help=f"seconds between two looks of --watch (default: {EVERY})",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Print a line for each job and a total; or keep them in sight."""
    if options.every is not None and not options.watch:
        raise UserError("--every: it is for --watch; leave it out, or add that")
    if options.watch:
        watch(options.sweep, options.every or EVERY)
        return
    jobs = look(options.sweep)
    shown = figures_of(jobs)
    print_rows([header(shown), *(cells(job, shown) for job in jobs)], texts=TEXTS, whole=3)
    print(total(jobs))
    if more := deeper(options.sweep, jobs):
        print(more)


def look(sweep: Path) -> list[Standing]:
    """Return how every job of a sweep stands, those that wait for their start too.

    Raises:
        UserError: the folder is not there, or holds neither a job nor a run.
    """
    from flowtrain.sweeps.plan import read_jobs

    check_folder(sweep)
    others = sorted(path.parent.name for path in sweep.glob("*/result.json"))
    folders = [sweep / name for name in dict.fromkeys([*read_jobs(sweep), *others])]
    if not folders and RunFolder(sweep).started:
        folders = [sweep]
    if not folders:
        hint = deeper(sweep, [])
        raise UserError(f"{sweep}: no sweep's folder: it holds no job{hint and f'; {hint}'}")
    return [standing(folder) for folder in folders]


def deeper(sweep: Path, jobs: Sequence[Standing]) -> str:
    """Say how many runs lie below a folder that are no jobs in it, and what shows them.

    >>> deeper(run_folder, [standing(run_folder)])
    ''
    """
    shown = {sweep, *(job.folder for job in jobs)}
    number = sum(run not in shown for run in find(sweep))
    if not number:
        return ""
    runs = amount(number, "more run" if jobs else "run")
    lie = "lies" if number == 1 else "lie"
    return f"{runs} {lie} deeper: flowrun list {shlex.quote(str(sweep))}"


def header(shown: Mapping[str, str]) -> list[str]:
    """Return the names of the columns, with those of the metrics that are shown."""
    return ["state", "step", "of", *shown.values(), "left", "job", "where, why"]


def cells(job: Standing, shown: Iterable[str]) -> list[str]:
    """Return a job's row of the table."""
    return [
        job.state,
        f"{job.step:,}",
        f"{job.steps:,}" if job.steps else ABSENT,
        *(figure(job, name) for name in shown),
        ABSENT if math.isnan(job.seconds_left) else duration(job.seconds_left),
        job.folder.absolute().name,
        job.owner or job.error.partition("\n")[0][:LONGEST_REASON],
    ]


def total(jobs: Sequence[Standing]) -> str:
    """Say in one line how a whole sweep stands.

    >>> total([standing(run_folder), standing(tmp_path)])
    '2 jobs: 1 never began, 1 completed; 50% of the steps'
    """
    counts = Counter(job.state for job in jobs)
    states = sorted(counts, key=lambda state: (*URGENCY, state).index(state))
    done = sum(job.done for job in jobs) / len(jobs)
    found = ", ".join(f"{counts[state]:,} {state}" for state in states)
    return f"{amount(len(jobs), 'job')}: {found}; {done:.0%} of the steps"


def watch(sweep: Path, every: float) -> None:
    """Keep the table in sight until every job has ended; where no terminal is, print totals."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
        while True:
            jobs = look(sweep)
            if console.is_terminal:
                live.update(moving_table(jobs, console.height), refresh=True)
            else:
                print(total(jobs), flush=True)
            if not any(job.state in ("running", "waiting") for job in jobs):
                return
            time.sleep(every)


def moving_table(jobs: Sequence[Standing], height: int) -> "Table":
    """Return a table of at most a screen: what needs an eye first, the total below."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = figures_of(jobs)
    table = Table(*header(shown), box=box.SIMPLE_HEAD, caption=total(jobs), caption_justify="left")
    ordered = sorted(jobs, key=lambda job: (*URGENCY, job.state).index(job.state))
    for job in ordered[: max(1, height - 6)]:
        table.add_row(*(Text(one_line(cell)) for cell in cells(job, shown)))
    return table
