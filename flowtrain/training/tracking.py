"""Where a run's numbers and pictures go: TensorBoard, metrics.jsonl, the terminal and the log."""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import yaml
from rich import progress as live
from rich.console import Console

from flowtrain.config.section import dotted
from flowtrain.runs.folder import RunFolder
from flowtrain.training.state import Progress

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("flowtrain")

console = Console(highlight=False)

SECONDS_BETWEEN_LINES = 5.0
# One chart for the curves that belong together; the entropy is the floor that no NLL can pass.
LAYOUT = {"likelihood": {"NLL (nats)": ["Multiline", ["nll/train", "nll/val", "nll/entropy"]]}}


class ConsoleHandler(logging.Handler):
    """Shows log records as plain lines, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(record.getMessage(), markup=False, soft_wrap=True)


@contextmanager
def console_lines() -> Iterator[None]:
    """Show the log's lines on the console too, while a run lasts."""
    handler = ConsoleHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


class Tracker:
    """Write a run's scalars, figures and text to every sink; use it as a context manager.

    In a terminal a live bar shows the progress; elsewhere plain lines tell it now and then.

    Args:
        folder: the run folder.
        step: the last step whose record stands when a run is resumed; -1 for a new run.
    """

    def __init__(self, folder: RunFolder, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _drop_after(folder.metrics, step)
        self.metrics = folder.metrics.open("a", encoding="utf-8")
        # Flushed often: a short run is watched live, and a killed one keeps its curves.
        self.board = SummaryWriter(folder.path, purge_step=step + 1, flush_secs=5)
        if step < 0:
            self.board.add_custom_scalars(LAYOUT)
        self.bar = live.Progress(
            live.BarColumn(bar_width=16),
            live.TextColumn("{task.fields[status]}"),
            live.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("", total=1.0, status="")
        self.silent_until = 0.0
        self.mark = (max(step, 0), time.monotonic())

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()
        self.metrics.close()
        self.board.close()

    def scalars(self, progress: Progress, values: dict[str, float]) -> None:
        """Write scalars, tag -> value, to TensorBoard and as a line of metrics.jsonl."""
        for tag, value in values.items():
            self.board.add_scalar(tag, value, progress.step)
        line = {"step": progress.step, "seconds": round(progress.seconds, 3), **_finite(values)}
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()

    def picture(self, step: int, tag: str, image: "np.ndarray") -> None:
        """Show rendered pixels, (height, width, 3), in TensorBoard."""
        self.board.add_image(tag, image, step, dataformats="HWC")

    def text(self, tag: str, content: dict[str, Any]) -> None:
        """Show nested settings as a block of YAML in TensorBoard."""
        self.board.add_text(tag, f"```yaml\n{yaml.safe_dump(content, sort_keys=False)}\n```")

    def rate(self, step: int) -> float:
        """Return the steps per second since the last call."""
        now = time.monotonic()
        rate = (step - self.mark[0]) / (now - self.mark[1])
        self.mark = (step, now)
        return rate

    def hparams(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Enter the run in TensorBoard's HPARAMS tab, from its own event file.

        Without an experiment summary the tab shows the union of all runs' columns, and every
        scalar tag as a metric.
        """
        from torch.utils.tensorboard.summary import hparams

        settings = {
            key: value if isinstance(value, str | int | float) else str(value)
            for key, value in dotted(config).items()
            if value is not None
        }
        _, start, end = hparams(settings, metrics)
        self.board._get_file_writer().add_summary(start)
        self.board._get_file_writer().add_summary(end)

    def progress(self, fraction: float, status: str) -> None:
        """Move the bar; where there is none, print the status as a line every few seconds."""
        self.bar.update(self.task, completed=fraction, status=status)
        if not console.is_terminal and time.monotonic() > self.silent_until:
            self.silent_until = time.monotonic() + SECONDS_BETWEEN_LINES
            log.info("%3.0f%%  %s", 100 * fraction, status)


def _drop_after(path: Path, step: int) -> None:
    """Take back the lines that an interrupted run wrote after the checkpoint it resumes from."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
