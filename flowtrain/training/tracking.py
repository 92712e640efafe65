"""Where a run's numbers and pictures go: metrics.jsonl and its logger."""

import errno
import logging
import os
import time
from types import TracebackType
from typing import Any, Self

from flowtrain.config.logger import Logger as LoggerSection
from flowtrain.config.logger import TensorBoard
from flowtrain.evaluation.tags import is_evaluation
from flowtrain.files import appending, json_text, replacing
from flowtrain.runs.folder import RunFolder
from flowtrain.training.loggers import Logger
from flowtrain.training.pace import Pace
from flowtrain.training.state import Progress
from flowtrain.untrusted import read_records

log = logging.getLogger("flowtrain")

TENSORBOARD = TensorBoard(name="tensorboard")


class Tracker:
    """Write a run's scalars, figures and text to every sink; use it as a context manager.

    Scalars always go to metrics.jsonl, which a resumed run needs, and to the logger.

    Args:
        folder: the run folder.
        step: the last step whose record stands when a run is resumed; -1 for a new run.
        evaluated: the last step whose evaluation stands.
        logger: the section of the group `logger` that shows the rest.

    Raises:
        ConfigError: the logger's service refuses.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        step: int,
        evaluated: int,
        logger: LoggerSection = TENSORBOARD,
    ) -> None:
        kept = _take_back(folder, step, evaluated)
        self.logger: Logger = logger.build(folder, step=step, kept=kept)
        self.path = str(folder.metrics)
        self.metrics = appending(folder.metrics)
        self.pace = Pace()
        self.mark = (max(step, 0), time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.metrics.close()
        self.logger.close(failed=isinstance(error, Exception))

    def scalars(self, progress: Progress, values: dict[str, float]) -> None:
        """Write scalars, tag -> value, to the logger and as a line of metrics.jsonl.

        Raises:
            FileNotFoundError: the folder was removed, and what is written now would be nowhere.
        """
        if os.fstat(self.metrics.fileno()).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "removed while the run was at work", self.path)
        self.logger.scalars(progress.step, progress.seconds, values)
        line = {"step": progress.step, "seconds": round(progress.seconds, 3), **values}
        self.metrics.write(json_text(line) + "\n")
        self.metrics.flush()
        if is_evaluation(values):  # a checkpoint follows, which promises that its history is there
            os.fsync(self.metrics.fileno())

    def rate(self, step: int) -> float:
        """Return the steps per second since the last call."""
        now = time.monotonic()
        rate = (step - self.mark[0]) / (now - self.mark[1])
        self.mark = (step, now)
        return rate


def _take_back(folder: RunFolder, step: int, evaluated: int) -> list[dict[str, Any]]:
    """Take back the lines that a run wrote after the checkpoint it resumes from; return the rest.

    At the checkpoint's own step that is an evaluation which the checkpoint does not know of, and
    the closing line: whoever goes on writes them again.
    """
    lines, damaged = read_records(folder.metrics, inside=folder.path)
    if damaged:
        log.warning("%s: %d damaged lines are left out", folder.metrics, damaged)
    kept = []
    for line in lines:
        unknown = line["step"] > evaluated and is_evaluation(line)
        closing = any(tag.endswith("/test") for tag in line)
        if line["step"] < step or (line["step"] == step and not unknown and not closing):
            kept.append(line)
    if lines or damaged or folder.metrics.exists():
        with replacing(folder.metrics) as file:
            file.write("".join(json_text(line) + "\n" for line in kept).encode())
    return kept
