"""What a sweep says of its jobs: how many are done when it begins, which failed when it ends."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from flowtrain.errors import UserError
from flowtrain.runs.standing import ENDED, state_of
from flowtrain.sweeps.plan import Job, read_jobs
from flowtrain.text import amount

NAMED = 5  # jobs; the table names them all, with their reasons


def opening(sweep: Path, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield the line that begins a sweep: how many jobs it has, and how those of earlier stand.

    >>> list(opening(Path("sweep"), [Job((), "0", "completed"), Job((), "1", "killed")]))
    ['sweep: 2 jobs: 1 completed, 1 killed; 1 to run']
    """
    counts = Counter(job.state for job in jobs)
    if counts.keys() == {"waiting"}:
        yield f"{sweep}: {amount(len(jobs), 'job')}"
    else:
        found = ", ".join(f"{number:,} {state}" for state, number in counts.items())
        to_run = sum(job.to_run for job in jobs)
        todo = f"{to_run:,}" if to_run else "none"
        yield f"{sweep}: {amount(len(jobs), 'job')}: {found}; {todo} to run"


def refuse_failures(sweep: Path, *, advice: str | None = None) -> None:
    """End a sweep well only if every job of it did.

    Args:
        sweep: its folder.
        advice: what to do about jobs that did not; to run them again by default.

    Raises:
        UserError: a job has not ended, or failed; they are named.
    """
    states = {name: state_of(sweep / name) for name in read_jobs(sweep)}
    missed = {name: state for name, state in states.items() if state not in ENDED}
    if missed:
        named = [f"{name} ({state})" for name, state in missed.items()]
        more = f" and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
        again = f"run them again: flowtrain -m {shlex.quote(f'resume_sweep={sweep}')}"
        raise UserError(
            f"{len(missed):,} of {amount(len(states), 'job')} did not complete: "
            f"{', '.join(named[:NAMED])}{more}; {advice or again}"
        )
