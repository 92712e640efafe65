"""How training ends: with a result, or by a signal or an error, and what it says then."""

import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from flowtrain.config.schema import Config
from flowtrain.config.trainer import Trainer
from flowtrain.errors import CheckpointError
from flowtrain.evaluation.tags import validated
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.training.schedule import finished
from flowtrain.training.state import Progress

log = logging.getLogger("flowtrain")

Hopeless = Callable[[int, dict[str, float]], bool]


@dataclass(frozen=True)
class Result:
    """How a run ended: its status, its last metrics and the signal that interrupted it, if any.

    >>> Result("completed", 6, {"nll/val": 2.5}).metric
    2.5
    >>> Result("completed", 6, {"nll/val": 2.5, "kl/val": 0.1}).metric
    0.1
    """

    status: str  # completed | interrupted | pruned
    step: int
    metrics: dict[str, float]
    signal: int | None = None

    @property
    def metric(self) -> float:
        """What sweeps minimise: validation KL where the density is known, else NLL."""
        return validated(self.metrics)


class Training(Protocol):
    """A run, or replicas: what stands somewhere and reports to its folder."""

    @property
    def folder(self) -> RunFolder: ...

    @property
    def progress(self) -> Progress: ...

    def rewind(self) -> None: ...

    def report(self, status: str, **more: Any) -> None: ...


@contextmanager
def reporting_failure(training: Training) -> Iterator[None]:
    """Report training that a signal or an error ends at once: its last checkpoint stands.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with suppress(ValueError), reporting_failure(run):
    ...     raise ValueError("the disk is full")
    >>> read_result(run.folder)["status"], read_result(run.folder)["error"]
    ('failed', 'the disk is full')
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):
        training.rewind()
        with suppress(BrokenPipeError):
            report_interrupted(training)
        raise
    except Exception as error:
        with suppress(CheckpointError):  # a full disk may refuse this, too
            training.report("failed", error=str(error))
        raise


def report_interrupted(training: Training) -> None:
    """Report that a signal ended training, and how to go on."""
    training.report("interrupted")
    log.info("interrupted at step %d; go on with", training.progress.step)
    log.info("  flowtrain %s", shlex.quote(f"resume={training.folder.path}"))


def report_pruned(training: Training) -> None:
    """Report that training was given up, as other trials do better."""
    training.report("pruned")
    log.info("pruned at step %d: other trials do better", training.progress.step)


def ended_before(config: Config, folder: RunFolder, reached: Sequence[Progress]) -> Result | None:
    """Return the result of training that has ended, and say what would let it go on; else None.

    Args:
        config: of the run, or of each replica.
        folder: of the whole.
        reached: where the run stands, or each replica.
    """
    result = read_result(folder)
    over = all(finished(config, progress) for progress in reached)
    if not over or result.get("status") != "completed":
        return None
    step = max(progress.step for progress in reached)
    log.info("finished already, at step %d: %s", step, folder.path)
    log.info("to train on, ask for more: %s", more_of(config.trainer, reached))
    return Result("completed", step, result["metrics"])


def more_of(limits: Trainer, ended: Sequence[Progress]) -> str:
    """Say which settings would let runs go on that have ended: of each limit reached, more.

    Args:
        limits: of the runs.
        ended: where they stand.

    >>> from flowtrain.runs.load import open_run
    >>> more_of(open_run(run_folder).config.trainer, [Progress(step=6)])
    'trainer.max_steps=12'
    """
    step, seconds = max(one.step for one in ended), max(one.seconds for one in ended)
    more = []
    if limits.max_steps is not None and step >= limits.max_steps:
        more.append(f"trainer.max_steps={2 * step}")
    if limits.max_seconds is not None and seconds >= limits.max_seconds:
        more.append(f"trainer.max_seconds={2 * seconds:.0f}")
    if limits.patience is not None and any(one.stale >= limits.patience for one in ended):
        more.append("trainer.patience=null")
    return " ".join(more)
