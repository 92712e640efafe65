"""How a run stands, at work or not: its state, its step, its figure, read in a millisecond."""

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from flowtrain.errors import UserError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import owner
from flowtrain.runs.result import read_result
from flowtrain.untrusted import open_regular, read_json, record

T = TypeVar("T")

ENDED = ("completed", "pruned")
TAIL = 2**15  # bytes at the end of metrics.jsonl: some hundred lines


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes:
        folder: of the run.
        state: completed, pruned, failed, interrupted; running, or killed, if its last word was that
            it runs and no process does; waiting, for its start by a sweep; never began, if it is no
            job of a sweep and was cut off before it wrote a result.json.
        result: what its result.json says, nothing if it has none.
        step: that it has reached.
        seconds: of training.
        metrics: its last ones, by tag.
        owner: the process at work and its host, or nothing.

    >>> run = standing(run_folder)
    >>> run.state, run.step, run.done
    ('completed', 6, 1.0)
    """

    folder: Path
    state: str
    result: dict[str, Any]
    step: int
    seconds: float
    metrics: dict[str, float]
    owner: str

    def setting(self, group: str, key: str, kind: type[T]) -> T | None:
        """Return a setting of its config; None if it has none of this type.

        >>> from flowtrain.runs.result import write_result
        >>> config = {"trainer": {"max_steps": 800}}
        >>> write_result(RunFolder(tmp_path), status="running", config=config)
        >>> standing(tmp_path).setting("trainer", "max_steps", int)
        800
        """
        section = self.result.get("config", {}).get(group)
        found = section.get(key) if isinstance(section, dict) else None
        return found if isinstance(found, kind) else None

    @property
    def steps(self) -> int:
        """How many it is to take; 0 where that is not known."""
        asked = self.setting("trainer", "max_steps", int)
        return asked or (self.step if self.state in ENDED else 0)

    @property
    def objective(self) -> str:
        """The name of the one it is trained by, or nothing."""
        return self.setting("objective", "name", str) or ""

    @property
    def error(self) -> str:
        """Why it failed, or nothing."""
        return str(self.result.get("error", ""))

    @property
    def done(self) -> float:
        """The part of its steps that it has taken, in [0, 1]; all of them once it has ended."""
        if self.state in ENDED:
            return 1.0
        return min(1.0, self.step / self.steps) if self.steps else 0.0

    @property
    def seconds_left(self) -> float:
        """The seconds that the rest will take at the speed so far; NaN before the first step."""
        if self.state != "running" or not self.step or not self.steps:
            return math.nan
        return self.seconds / self.step * max(0, self.steps - self.step)


def standing(run: Path) -> Standing:
    """Return how a run stands, or a job that has not begun.

    >>> standing(tmp_path).state
    'never began'
    """
    result = read_result(RunFolder(run))
    status = str(result.get("status") or _before(run))
    state = _state(run, status)
    step, seconds = int(result.get("step", 0)), float(result.get("seconds", 0.0))
    metrics = {tag: value for tag, value in result.get("metrics", {}).items() if value is not None}
    if "running" in (status, state):  # result.json is of the start
        for line in _last_lines(RunFolder(run).metrics):
            if line["step"] >= step:
                step, seconds = line["step"], line.get("seconds", seconds)
                metrics |= {tag: v for tag, v in line.items() if "/val" in tag and v is not None}
    at_work = (owner(run) or "") if state == "running" else ""
    return Standing(run, state, result, step=step, seconds=seconds, metrics=metrics, owner=at_work)


def state_of(run: Path) -> str:
    """Return the state of a sweep's job, begun or not, as `Standing` explains it.

    >>> state_of(run_folder), state_of(tmp_path)
    ('completed', 'waiting')
    """
    return _state(run, str(read_result(RunFolder(run)).get("status", "waiting")))


def _state(run: Path, status: str) -> str:
    if status in ENDED:
        return status
    if owner(run) is not None:
        return "running"
    return "killed" if status == "running" else status


def _before(run: Path) -> str:
    """Say what a folder is that no run has reported from."""
    file = RunFolder(run).sweep
    try:
        jobs = _jobs(file, file.stat().st_mtime_ns)
    except (OSError, UserError):
        return "never began"
    return "waiting" if run.absolute().name in jobs else "never began"


@lru_cache(maxsize=8)
def _jobs(file: Path, _changed: int) -> frozenset[str]:
    """Return the names of a sweep's jobs, read once for all of them."""
    content = read_json(file, inside=file.parent)
    jobs = content.get("jobs") if isinstance(content, dict) else None
    return frozenset(jobs if isinstance(jobs, dict) else ())


def _last_lines(path: Path) -> list[dict[str, Any]]:
    """Return the last whole lines of a metrics.jsonl that have a step."""
    try:
        with open_regular(path, inside=path.parent) as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL)
            file.seek(start)
            lines = file.read(TAIL).splitlines()[1 if start else 0 :]
    except (OSError, UserError):
        return []
    return [found for line in lines if (found := record(line)) is not None]
