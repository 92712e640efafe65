"""Replicas trained in one program: their losses and gradients from one pass, all else each its own.

To draw, to clip, to step, to skip, to evaluate and to save is as in a single run; see `trainer`.
"""

import logging
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flowtrain.batching import side_by_side
from flowtrain.build import batches_at_once
from flowtrain.config.schema import Config, validate
from flowtrain.errors import CheckpointError
from flowtrain.evaluation.checks import of_several, warnings_about
from flowtrain.flows.ensemble import mixture
from flowtrain.progress import doing, done, part
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.training.cuda_graph import CudaGraph
from flowtrain.training.figures import draw_mixture
from flowtrain.training.flow_matching import FlowMatching
from flowtrain.training.objectives import MaximumLikelihood
from flowtrain.training.replicas import (
    Replicas,
    held_config,
    mixture_metrics,
    open_replicas,
    tracked,
)
from flowtrain.training.report import headline, headline_of_several, report_of_several
from flowtrain.training.resume import reconcile
from flowtrain.training.run import Run
from flowtrain.training.schedule import finished, progress_fraction
from flowtrain.training.signals import catch_signals
from flowtrain.training.stack import Stack
from flowtrain.training.start import telling_memory
from flowtrain.training.state import Progress
from flowtrain.training.step import begin_step, end_step
from flowtrain.training.tracking import Tracker
from flowtrain.training.trainer import Hopeless, Result, evaluation_is_due
from flowtrain.training.validation import judge, validate_weights

log = logging.getLogger("flowtrain")

Backward = Callable[..., torch.Tensor]


def train_replicas(
    config: Config, folder: Path, *, asked: dict[str, Any] | None, hopeless: Hopeless | None
) -> Result:
    """Train the replicas that a config asks for, or go on with those that the folder holds.

    Args:
        config: of the whole; when resuming, only the settings in `asked` are applied.
        folder: of the whole, locked by the caller.
        asked: as `train` has it.
        hopeless: as `train` has it; it is told the means.

    Raises:
        UserError: as `train`.
    """
    whole = RunFolder(folder)
    whole.refuse_links()
    asked = config.model_dump() if asked is None else asked
    if (single := checkpoint.read_newest(whole)) is not None:
        reconcile(single["config"], asked)  # it refuses: that run has no replicas
    if whole.replicas:
        config = validate(reconcile(held_config(whole).model_dump(), asked))
    replicas = open_replicas(config, whole)
    progress = replicas.progress
    over = all(finished(run.config, run.state.progress) for run in replicas.runs)
    if over and read_result(whole).get("status") == "completed":
        log.info("finished already, at step %d: %s", progress.step, folder)
        return Result("completed", progress.step, read_result(whole)["metrics"])
    first = replicas.runs[0]
    log.info(
        "%s: %d replicas of %s parameters, %s training points each, %s",
        first.device,
        len(replicas.runs),
        f"{first.parameters:,}",
        f"{len(first.splits.train.x):,}",
        config.trainer.budget,
    )
    replicas.report_all("running")
    try:
        with (
            tracked(replicas) as trackers,
            catch_signals() as caught,
            telling_memory(config),
            side_by_side(batches_at_once(config, first.device)),
        ):
            status = _train_together(replicas, *trackers, caught=caught, hopeless=hopeless)
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):  # at once: the checkpoints stand
        for run in replicas.runs:
            if (last := run.folder.checkpoint("last")).exists():
                run.state.progress = Progress(**checkpoint.read(last)["progress"])
        with suppress(BrokenPipeError):
            _report_interrupted(replicas)
        raise
    except Exception as error:
        with suppress(CheckpointError):  # a full disk may refuse this, too
            replicas.report_all("failed", error=str(error))
        raise
    progress = replicas.progress
    return Result(status, progress.step, progress.metrics, caught[0] if caught else None)


def _train_together(
    replicas: Replicas,
    whole: Tracker,
    trackers: Sequence[Tracker],
    *,
    caught: Sequence[int],
    hopeless: Hopeless | None,
) -> str:
    """Train until every replica is finished, a signal came or there is no hope; return the status.

    Replicas at the lowest step go on, those ahead of them wait: a process that was killed between
    two checkpoints leaves them a step or an interval apart.
    """
    config, runs = replicas.config, replicas.runs
    of = dict(zip(map(id, runs), trackers, strict=True))
    stack: tuple[list[Run], Backward] | None = None
    clock = time.monotonic() - replicas.progress.seconds
    while True:
        if due := [run for run in runs if evaluation_is_due(run.config, run.state.progress)]:
            run_validations(replicas, due, [of[id(run)] for run in due], whole)
            progress = replicas.progress
            if progress.step == 0:
                clock = time.monotonic()  # training begins now
            _tell_time(runs, clock)
            if progress.step and hopeless is not None and hopeless(progress.step, progress.metrics):
                replicas.report_all("pruned")
                log.info("pruned at step %d: other trials do better", progress.step)
                return "pruned"
        abreast = _abreast(runs)
        if not abreast or caught:
            break
        if stack is None or stack[0] != abreast:
            stack = abreast, backward_of(abreast, capture=config.trainer.capture)
        progress = abreast[0].state.progress
        done_before = progress_fraction(config, progress)
        with part(done_before, progress_fraction(config, progress, ahead=1)):
            began = time.monotonic()
            losses = train_steps(abreast, [of[id(run)] for run in abreast], stack[1])
            whole.pace.count(losses.mean().item(), time.monotonic() - began)
            done(1.0, *whole.pace.details(replicas.progress, config.trainer.max_steps))
        _tell_time(runs, clock)
    if abreast:
        for run in runs:
            run.save("last")
        _report_interrupted(replicas)
        return "interrupted"
    late = [run for run in runs if run.state.progress.last_eval_step < run.state.progress.step]
    if late:
        run_validations(replicas, late, [of[id(run)] for run in late], whole)
    finish(replicas, trackers, whole)
    return "completed"


def _abreast(runs: Sequence[Run]) -> list[Run]:
    """Return the replicas that go on: of those that are not finished, the ones furthest behind."""
    going = [run for run in runs if not finished(run.config, run.state.progress)]
    least = min((run.state.progress.step for run in going), default=0)
    return [run for run in going if run.state.progress.step == least]


def _tell_time(runs: Sequence[Run], clock: float) -> None:
    for run in runs:
        run.state.progress.seconds = time.monotonic() - clock


def _report_interrupted(replicas: Replicas) -> None:
    replicas.report_all("interrupted")
    log.info("interrupted at step %d; go on with", replicas.progress.step)
    log.info("  flowtrain %s", shlex.quote(f"resume={replicas.folder.path}"))


def backward_of(runs: Sequence[Run], *, capture: bool) -> Backward:
    """Return what takes the batches of all runs to their losses, (R,), and leaves the gradients.

    Args:
        runs: of one objective.
        capture: whether it is recorded as a CUDA graph.
    """
    objective = runs[0].phases[0].objective
    assert isinstance(objective, MaximumLikelihood | FlowMatching)  # the config has refused others
    stack = Stack([run.weights for run in runs])
    backward = partial(stack.backward, objective.loss)
    return CudaGraph(backward, stack.gradients) if capture else backward


def train_steps(
    runs: Sequence[Run], trackers: Sequence[Tracker], backward: Backward
) -> torch.Tensor:
    """Take a step of every run, their losses and gradients from one pass; return the losses, (R,).

    Raises:
        TrainingError: too many steps of a run in a row were skipped.
    """
    batches = [begin_step(run) for run in runs]
    objective = batches[0].objective
    assert isinstance(objective, MaximumLikelihood | FlowMatching)  # the config has refused others
    drawn = [
        objective.draw(run.state.flow, batch.x, run.state.generator)
        for run, batch in zip(runs, batches, strict=True)
    ]
    x = torch.stack([batch.x for batch in batches])
    chance = [torch.stack(each) for each in zip(*drawn, strict=True)]
    losses = backward(x, *chance)
    for run, tracker, loss in zip(runs, trackers, losses, strict=True):
        if not end_step(run, tracker, loss, objective.scalars(loss)):
            log.warning("it is a step of %s", run.folder.path)
    return losses


def run_validations(
    replicas: Replicas, runs: Sequence[Run], trackers: Sequence[Tracker], whole: Tracker
) -> None:
    """Evaluate some of the replicas, write their checkpoints, and log the means of all.

    Raises:
        CheckpointError, TrainingError: as `run_validation`.
    """
    for run, tracker in zip(runs, trackers, strict=True):
        with doing(run.folder.path.name):
            validate_weights(run, tracker)
        tracker.rate(run.state.progress.step)
    _warn(runs)
    progress, found = replicas.progress, replicas.spreads
    errors = {"kl_sem/val": found["kl/val"].error, "nll_sem/val": found["nll/val"].error}
    whole.scalars(progress, progress.metrics | errors)
    log.info("step %6d  %s", progress.step, headline_of_several(found))


def _warn(runs: Sequence[Run]) -> None:
    """Warn of figures that cannot be true; of many runs' alike, once."""
    found = [
        (run.folder.path.name, line)
        for run in runs
        for line in warnings_about(run.state.progress.metrics, base=run.config.model.base)
    ]
    for line in of_several(found):
        log.warning(line)


def finish(replicas: Replicas, trackers: Sequence[Tracker], whole: Tracker) -> None:
    """Judge every replica and their mixture by their best weights; print the final report.

    Raises:
        TrainingError: as `judge`.
    """
    for run, tracker in zip(replicas.runs, trackers, strict=True):
        with doing(run.folder.path.name):
            judge(run, tracker)
        run.report("completed")
    _warn(replicas.runs)
    config, progress = replicas.config, replicas.progress
    flow = mixture([run.state.eval_flow for run in replicas.runs])
    with doing("their mixture"):
        together = mixture_metrics(flow, replicas.runs[0])
    whole.scalars(progress, {tag: v for tag, v in progress.metrics.items() if "/test" in tag})
    whole.summary(config.model_dump(), progress.metrics)
    if config.trainer.figures:
        title = f"{len(replicas.runs)} x {config.model.name} on {config.data.title}, their mixture"
        with doing("drawing the mixture"):
            draw_mixture(flow, replicas.runs[0], replicas.folder, f"{title}: {headline(together)}")
    replicas.report("completed", mixture=together)
    for text in report_of_several(
        config, replicas.folder.path, progress, replicas.spreads, together,
        parameters=replicas.runs[0].parameters,
    ):  # fmt: skip
        log.info(text)
