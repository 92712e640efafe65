"""The jobs of a sweep, and which of them still run: a finished one costs nothing any more."""

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, marked
from flowtrain.errors import UserError
from flowtrain.files import writing
from flowtrain.runs.folder import SWEEP
from flowtrain.runs.standing import ENDED, state_of
from flowtrain.untrusted import read_json, read_yaml

ELSEWHERE = frozenset({"launcher", "sweep"})  # they say where and how jobs run, not what they are
# Of jobs another path is taken for other rows: a table that has moved is told run by run.
LATER = ELSEWHERE | ({*marked(Config, Mark.RESUMABLE)} - {"data.path"})


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        overrides: of the config, as Hydra hands them to the job.
        name: of its folder in the sweep's; None as long as it has none.
        state: completed, pruned, failed, interrupted, killed, running, waiting for its start, or
            changed: it ended, and is now asked for more.
    """

    overrides: tuple[str, ...]
    name: str | None
    state: str

    @property
    def to_run(self) -> bool:
        """Whether it should be launched: it has not ended, and no process is at work on it."""
        return self.state not in (*ENDED, "running")


def plan(sweep: Path, asked: Iterable[Sequence[str]]) -> list[Job]:
    """Find the jobs asked for among those that a sweep's folder holds, in the order asked.

    A job is known by its overrides. Those that a run may change when it goes on (trainer.max_steps)
    may differ; then the job is to run, whatever it has reached.

    Args:
        sweep: the folder, whether it exists or not.
        asked: the overrides of every job.

    Raises:
        UserError: the folder holds a job that is not asked for, or its record is damaged.

    >>> [job.state for job in plan(tmp_path, [["seed=0"], ["seed=1"]])]
    ['waiting', 'waiting']
    """
    wanted = [tuple(overrides) for overrides in asked]
    held = read_jobs(sweep)
    distinct = _all_differ(wanted, LATER) and _all_differ([*held.values()], LATER)
    ignored = LATER if distinct else ELSEWHERE
    known = {_identity(overrides, ignored): name for name, overrides in held.items()}
    jobs = []
    for overrides in wanted:
        name = known.pop(_identity(overrides, ignored), None)
        state = "waiting" if name is None else state_of(sweep / name)
        if name is not None and state in ENDED:
            same = _identity(overrides, ELSEWHERE) == _identity(held[name], ELSEWHERE)
            state = state if same else "changed"
        jobs.append(Job(overrides, name, state))
    if known:
        name = min(known.values())
        raise UserError(
            f"{sweep} holds another sweep: {name} is not among the jobs asked for; give this one a "
            "folder of its own by hydra.sweep.dir"
        )
    return jobs


def read_jobs(sweep: Path) -> dict[str, tuple[str, ...]]:
    """Return the overrides of a sweep's jobs by the names of their folders; none if there are none.

    A sweep of an earlier release left no record; its jobs' own folders have it.

    Raises:
        UserError: the record is damaged.

    >>> read_jobs(tmp_path)
    {}
    """
    if (sweep / SWEEP).exists():
        return {name: tuple(given) for name, given in read_record(sweep)["jobs"].items()}
    jobs = {}
    for file in sorted(sweep.glob("*/.hydra/overrides.yaml")):
        overrides = read_yaml(file, inside=sweep)
        given = overrides if isinstance(overrides, list) else []
        jobs[file.parents[1].name] = tuple(map(str, given))
    return jobs


def read_record(sweep: Path) -> dict[str, Any]:
    """Return what a sweep's folder records: `arguments` as typed, the `directory`, and `jobs`.

    Raises:
        UserError: there is no record, or it is damaged.

    >>> write_record(tmp_path, ["seed=0,1"], {"0-seed=0": ["seed=0"], "1-seed=1": ["seed=1"]})
    >>> read_record(tmp_path)["arguments"]
    ['seed=0,1']
    """
    file = sweep / SWEEP
    try:
        record = read_json(file, inside=sweep)
    except FileNotFoundError:
        there = "is no folder of a sweep" if sweep.is_dir() else "is not there"
        raise UserError(f"{sweep} {there}: it has no {SWEEP}") from None
    jobs = record.get("jobs") if isinstance(record, dict) else None
    if not (
        isinstance(jobs, dict)
        and all(_is_name(name) and _are_texts(given) for name, given in jobs.items())
        and _are_texts(record.get("arguments"))
        and isinstance(record.get("directory", ""), str)
    ):
        raise UserError(f"{file} is damaged: it should hold the sweep's arguments and its jobs")
    found: dict[str, Any] = record
    return found


def write_record(sweep: Path, arguments: Sequence[str], jobs: Mapping[str, Sequence[str]]) -> None:
    """Record what a sweep is made of, before its first job begins.

    Args:
        sweep: its folder.
        arguments: as typed.
        jobs: the overrides of each, by the name of its folder.

    Raises:
        UserError: the folder cannot be written.

    >>> write_record(tmp_path, ["seed=0"], {"0": ["seed=0"]})
    >>> read_jobs(tmp_path)
    {'0': ('seed=0',)}
    """
    content = {
        "arguments": [*arguments],
        "directory": str(Path.cwd()),  # where paths among them begin
        "jobs": {name: [*each] for name, each in jobs.items()},
    }
    with writing(sweep / SWEEP) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def _identity(overrides: Iterable[str], ignored: frozenset[str]) -> frozenset[str]:
    return frozenset(each for each in overrides if _key(each) not in ignored)


def _all_differ(jobs: list[tuple[str, ...]], ignored: frozenset[str]) -> bool:
    return len({_identity(job, ignored) for job in jobs}) == len(jobs)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def refuse_folder(name: str, taken: Container[str]) -> None:
    """Refuse a name that a user gave to a job's folder, if no folder of a sweep may have it.

    Args:
        name: of the folder.
        taken: the names of the other jobs' folders.

    Raises:
        UserError: it is a path, hidden, or another job's.

    >>> refuse_folder("seed=1", taken=["seed=0"])
    """
    if not _is_name(name):
        raise UserError(
            f"hydra.sweep.subdir: {name!r} is no name of a folder: no / in it, no first ."
        )
    if name in taken:
        raise UserError(
            f"hydra.sweep.subdir: two jobs have the folder {name!r}; put in what they differ in, "
            "as ${seed}"
        )


def _is_name(text: str) -> bool:
    return Path(text).name == text and not re.match(r"\.|$", text)


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(each, str) for each in found)
