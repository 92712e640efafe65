"""The loop: one training run from top to bottom: build, step, validate, stop, report."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowtrain.batching import side_by_side
from flowtrain.build import batches_at_once
from flowtrain.config.schema import Config, validate
from flowtrain.progress import part
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.result import environment
from flowtrain.runs.settings import reconcile
from flowtrain.training.outcome import (
    Hopeless,
    Result,
    ended_before,
    report_interrupted,
    report_pruned,
    reporting_failure,
)
from flowtrain.training.resume import refuse_unnamed_code
from flowtrain.training.run import Run
from flowtrain.training.schedule import evaluation_is_due, finished, progress_fraction
from flowtrain.training.signals import catch_signals
from flowtrain.training.start import open_or_build, telling_memory
from flowtrain.training.state import Progress
from flowtrain.training.step import train_step
from flowtrain.training.together import train_replicas
from flowtrain.training.tracking import Tracker
from flowtrain.training.validation import finish, run_validation

log = logging.getLogger("flowtrain")


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
    asked = config.model_dump() if asked is None else asked
    with locked(folder):
        several = asked.get("trainer", {}).get("replicas", 1) > 1
        if several or RunFolder(folder).replicas:
            return train_replicas(
                config, RunFolder(folder), asked=asked, trust_code=trust_code, hopeless=hopeless
            )
        return _train_one(config, RunFolder(folder), asked, trust_code, hopeless)


def _train_one(
    config: Config,
    folder: RunFolder,
    asked: dict[str, Any],
    trust_code: bool,
    hopeless: Hopeless | None,
) -> Result:
    folder.refuse_links()
    saved = checkpoint.read_newest(folder)
    if saved is not None:
        config = validate(reconcile(saved["config"], asked))
        if not trust_code:
            refuse_unnamed_code(config, asked, folder.path)
        if ended := ended_before(config, folder, [Progress.restored(saved["progress"])]):
            return ended
    run = open_or_build(config, folder, saved)
    config, progress = run.config, run.progress
    log.info(
        "%s: %s parameters, %s training points, %s",
        run.device,
        f"{run.parameters:,}",
        f"{len(run.splits.train.x):,}" if len(run.splits.val.x) else "no",
        config.trainer.budget,
    )
    run.report("running")
    recorded = -1 if saved is None else progress.step
    with (
        reporting_failure(run),
        Tracker(
            folder, step=recorded, evaluated=progress.last_eval_step, logger=config.logger
        ) as tracker,
        catch_signals() as caught,
        telling_memory(config),
        side_by_side(batches_at_once(config, run.device)),
    ):
        if progress.step == 0:
            tracker.logger.text("config", config.model_dump())
            tracker.logger.text("environment", environment(run.device))
        status = _train_to_the_end(run, tracker, caught, hopeless)
    if status == "completed":  # told when all has been written
        run.report(status)
    return Result(status, progress.step, progress.metrics, caught[0] if caught else None)


def _train_to_the_end(
    run: Run, tracker: Tracker, caught: Sequence[int], hopeless: Hopeless | None
) -> str:
    """Train until the run is finished, a signal came or there is no hope; return the status."""
    config, progress = run.config, run.progress
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
            report_pruned(run)
            return "pruned"
        done_before = progress_fraction(config, progress)
        with part(done_before, progress_fraction(config, progress, ahead=1)):
            train_step(run, tracker)
        progress.seconds = time.monotonic() - clock
    if not finished(config, progress):
        run.save("last")
        report_interrupted(run)
        return "interrupted"
    if progress.last_eval_step < progress.step:
        run_validation(run, tracker)
    finish(run, tracker)
    return "completed"
