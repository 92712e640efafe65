"""The loop: one training run from top to bottom: build, step, validate, stop, report."""

import logging
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtrain.batching import side_by_side
from flowtrain.build import batches_at_once
from flowtrain.config.schema import Config, validate
from flowtrain.errors import CheckpointError
from flowtrain.evaluation.tags import validated
from flowtrain.progress import part
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.result import environment, read_result
from flowtrain.training.resume import reconcile, refuse_unnamed_code
from flowtrain.training.run import Run
from flowtrain.training.schedule import finished, progress_fraction
from flowtrain.training.signals import catch_signals
from flowtrain.training.start import open_or_build, telling_memory
from flowtrain.training.state import Progress
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker
from flowtrain.training.validation import finish, run_validation

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


def train(
    config: Config,
    folder: Path,
    *,
    asked: dict[str, Any] | None = None,
    trust_code: bool = False,
    hopeless: Hopeless | None = None,
) -> Result:
    """Train the flow that a config describes, in a run folder; go on if the folder holds a run.

    Args:
        config: the whole config; when resuming, only the settings in `asked` are applied.
        folder: the run folder.
        asked: the settings named by whoever resumes the run; all of them by default.
        trust_code: allow code of the user's own that the folder of a resumed run names.
        hopeless: is told the step and the metrics of each evaluation, and says whether to give up.

    Raises:
        LockedError: another process trains in this folder.
        UserError: a setting contradicts the run's, the device is not there, a checkpoint cannot
            be read or written, or the loss stays NaN or infinite.

    >>> from flowtrain.runs.load import load, open_run
    >>> config = open_run(run_folder).config
    >>> result = train(config, tmp_path / "run")
    >>> result.status, result.step, round(result.metric, 2)
    ('completed', 6, 1.37)
    >>> load(tmp_path / "run").sample(5).shape
    torch.Size([5, 2])
    """
    with locked(folder):
        wanted = config.model_dump() if asked is None else asked
        several = wanted.get("trainer", {}).get("replicas", 1) > 1
        if several or RunFolder(folder).replicas:
            from flowtrain.training.together import train_replicas  # it is made of what follows

            return train_replicas(config, folder, asked=asked, hopeless=hopeless)
        return _train(config, folder, asked, trust_code, hopeless)


def _train(
    config: Config,
    folder: Path,
    asked: dict[str, Any] | None,
    trust_code: bool,
    hopeless: Hopeless | None,
) -> Result:
    run_folder = RunFolder(folder)
    run_folder.refuse_links()
    last = run_folder.checkpoint("last")
    saved = checkpoint.read_newest(run_folder)
    if saved is not None:
        asked = config.model_dump() if asked is None else asked
        config = validate(reconcile(saved["config"], asked))
        if not trust_code:
            refuse_unnamed_code(config, asked, folder)
        progress = Progress.restored(saved["progress"])
        if finished(config, progress) and read_result(run_folder).get("status") == "completed":
            log.info("finished already, at step %d: %s", progress.step, folder)
            more = f"max_steps={2 * progress.step}"
            if config.trainer.max_steps is None:
                more = f"max_seconds={2 * progress.seconds:.0f}"
            log.info("to train on, ask for more: trainer.%s", more)
            return Result("completed", progress.step, read_result(run_folder)["metrics"])

    run = open_or_build(config, run_folder, saved)
    config, progress = run.config, run.state.progress
    log.info(
        "%s: %s parameters, %s training points, %s",
        run.device,
        f"{run.parameters:,}",
        f"{len(run.splits.train.x):,}" if len(run.splits.val.x) else "no",
        config.trainer.budget,
    )
    run.report("running")
    recorded = -1 if saved is None else progress.step
    try:
        with (
            Tracker(
                run_folder,
                step=recorded,
                evaluated=progress.last_eval_step,
                logger=config.logger,
            ) as tracker,
            catch_signals() as caught,
            telling_memory(config),
            side_by_side(batches_at_once(config, run.device)),
        ):
            if progress.step == 0:
                tracker.text("config", config.model_dump())
                tracker.text("environment", environment(run.device))
            clock = time.monotonic() - progress.seconds
            while True:
                if evaluation_is_due(config, progress):
                    run_validation(run, tracker)
                    if progress.step == 0:
                        clock = time.monotonic()  # training begins now
                    progress.seconds = time.monotonic() - clock
                if finished(config, progress) or caught:
                    break
                evaluated = progress.last_eval_step == progress.step > 0
                if evaluated and hopeless is not None and hopeless(progress.step, progress.metrics):
                    run.report("pruned")
                    log.info("pruned at step %d: other trials do better", progress.step)
                    return Result("pruned", progress.step, progress.metrics)
                done_before = progress_fraction(config, progress)
                with part(done_before, progress_fraction(config, progress, ahead=1)):
                    train_step(run, tracker)
                progress.seconds = time.monotonic() - clock
            if not finished(config, progress):
                run.save("last")
                report_interrupted(run)
                return Result("interrupted", progress.step, progress.metrics, caught[0])
            if progress.last_eval_step < progress.step:
                run_validation(run, tracker)
            finish(run, tracker)
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):  # at once: the last checkpoint stands
        if last.exists():
            run.state.progress = Progress(**checkpoint.read(last)["progress"])
        with suppress(BrokenPipeError):
            report_interrupted(run)
        raise
    except Exception as error:
        with suppress(CheckpointError):  # a full disk may refuse this, too
            run.report("failed", error=str(error))
        raise
    run.report("completed")
    return Result("completed", progress.step, progress.metrics, caught[0] if caught else None)


def evaluation_is_due(config: Config, progress: Progress) -> bool:
    """Return whether the step that a run has reached asks for an evaluation it has not had.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config  # it evaluates every 3 steps
    >>> [evaluation_is_due(config, Progress(step=n, last_eval_step=3)) for n in (3, 4, 6)]
    [False, False, True]
    """
    at_interval = progress.step % config.trainer.evaluate_every == 0
    return at_interval and progress.last_eval_step < progress.step


def report_interrupted(run: Run) -> None:
    """Report that a signal ended the run, and how to go on.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> report_interrupted(run)
    >>> read_result(run.folder)["status"]
    'interrupted'
    """
    run.report("interrupted")
    log.info("interrupted at step %d; go on with", run.state.progress.step)
    log.info("  flowtrain %s", shlex.quote(f"resume={run.folder.path}"))
