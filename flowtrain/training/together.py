"""Replicas trained in one program: their losses and gradients from one pass, all else each its own.

To draw, to clip, to step, to skip, to evaluate and to save is as in a single run; see `trainer`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from flowtrain.batching import side_by_side
from flowtrain.build import batches_at_once
from flowtrain.config.schema import Config, validate
from flowtrain.evaluation.checks import of_several, warnings_about
from flowtrain.flows.ensemble import mixture
from flowtrain.progress import doing, done, part
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.settings import held_config, reconcile
from flowtrain.training.cuda_graph import CudaGraph
from flowtrain.training.figures import draw_mixture
from flowtrain.training.flow_matching import FlowMatching
from flowtrain.training.objectives import MaximumLikelihood
from flowtrain.training.outcome import (
    Hopeless,
    Result,
    ended_before,
    report_interrupted,
    report_pruned,
    reporting_failure,
)
from flowtrain.training.replicas import (
    Replicas,
    mixture_metrics,
    open_replicas,
    tracked,
)
from flowtrain.training.report import headline, headline_of_several, report_of_several
from flowtrain.training.resume import refuse_unnamed_code
from flowtrain.training.run import Run
from flowtrain.training.schedule import evaluation_is_due, progress_fraction
from flowtrain.training.signals import catch_signals
from flowtrain.training.stack import Stack
from flowtrain.training.start import telling_memory
from flowtrain.training.step import begin_step, end_step
from flowtrain.training.tracking import Tracker
from flowtrain.training.validation import judge, validate_weights

log = logging.getLogger("flowtrain")

Backward = Callable[..., torch.Tensor]


def train_replicas(
    config: Config,
    whole: RunFolder,
    *,
    asked: dict[str, Any],
    trust_code: bool,
    hopeless: Hopeless | None,
) -> Result:
    """Train the replicas that a config asks for, or go on with those that the folder holds.

    Args:
        config: of the whole; when resuming, only the settings in `asked` are applied.
        whole: their folder, locked by the caller.
        asked: the settings that were named.
        trust_code: as `train` has it.
        hopeless: as `train` has it; it is told the means.

    Raises:
        UserError: as `train`.
    """
    whole.refuse_links()
    if (single := checkpoint.read_newest(whole)) is not None:
        reconcile(single["config"], asked)  # it refuses: that run has no replicas
    if whole.replicas:
        config = validate(reconcile(held_config(whole).model_dump(), asked))
        if not trust_code:
            refuse_unnamed_code(config, asked, whole.path)
    with open_replicas(config, whole) as replicas:
        if ended := ended_before(config, whole, [run.progress for run in replicas.runs]):
            return ended
        first = replicas.runs[0]
        log.info(
            "%s: %d replicas of %s parameters, %s training points each, %s",
            first.device,
            len(replicas.runs),
            f"{first.parameters:,}",
            f"{len(first.splits.train.x):,}",
            config.trainer.budget,
        )
        replicas.report("running")
        with (
            reporting_failure(replicas),
            tracked(replicas) as trackers,
            catch_signals() as caught,
            telling_memory(config),
            side_by_side(batches_at_once(config, first.device)),
        ):
            status = _train_to_the_end(replicas, *trackers, caught=caught, hopeless=hopeless)
        progress = replicas.progress
        return Result(status, progress.step, progress.metrics, caught[0] if caught else None)


def _train_to_the_end(
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
        if due := [run for run in runs if evaluation_is_due(run.config, run.progress)]:
            run_validations(replicas, due, [of[id(run)] for run in due], whole)
            if replicas.progress.step == 0:
                clock = time.monotonic()  # training begins now
            _tell_time(due, clock)
        abreast = _abreast(replicas.going)
        if not abreast or caught:
            break
        progress = replicas.progress
        evaluated = due and progress.step > 0
        if evaluated and hopeless is not None and hopeless(progress.step, progress.metrics):
            report_pruned(replicas)
            return "pruned"
        if stack is None or stack[0] != abreast:
            stack = abreast, backward_of(abreast, capture=config.trainer.capture)
        done_before = progress_fraction(abreast[0].config, progress)
        with part(done_before, progress_fraction(abreast[0].config, progress, ahead=1)):
            began = time.monotonic()
            losses = train_steps(abreast, [of[id(run)] for run in abreast], stack[1])
            whole.pace.count(losses.mean().item(), time.monotonic() - began)
            done(1.0, *whole.pace.details(replicas.progress, config.trainer.max_steps))
        _tell_time(abreast, clock)
    if abreast:
        for run in runs:
            run.save("last")
        report_interrupted(replicas)
        return "interrupted"
    late = [run for run in runs if run.progress.last_eval_step < run.progress.step]
    if late:
        run_validations(replicas, late, [of[id(run)] for run in late], whole)
    finish(replicas, trackers, whole)
    return "completed"


def _abreast(going: Sequence[Run]) -> list[Run]:
    """Return the runs that are furthest behind."""
    least = min((run.progress.step for run in going), default=0)
    return [run for run in going if run.progress.step == least]


def _tell_time(runs: Sequence[Run], clock: float) -> None:
    for run in runs:
        run.progress.seconds = time.monotonic() - clock


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
        tracker.rate(run.progress.step)
    _warn(runs, judged=False)
    progress, found = replicas.progress, replicas.spreads
    errors = {"kl_sem/val": found["kl/val"].error, "nll_sem/val": found["nll/val"].error}
    whole.scalars(progress, progress.metrics | errors)
    log.info("step %6d  %s", progress.step, headline_of_several(found))


def _warn(runs: Sequence[Run], *, judged: bool) -> None:
    """Warn of figures that cannot be true, and of training in vain; of many runs' alike, once."""
    found = [
        (run.folder.path.name, line)
        for run in runs
        for line in warnings_about(
            run.progress.metrics,
            untrained=judged and run.start_kept == "untrained",
            base=run.config.model.base,
        )
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
    _warn(replicas.runs, judged=True)
    config, progress = replicas.config, replicas.progress
    flow = mixture([run.state.eval_flow for run in replicas.runs])
    with doing("their mixture"):
        together = mixture_metrics(flow, replicas.runs[0])
    whole.scalars(progress, {tag: v for tag, v in progress.metrics.items() if "/test" in tag})
    whole.logger.summary(config.model_dump(), progress.metrics)
    if config.trainer.figures:
        title = f"{len(replicas.runs)} x {config.model.name} on {config.data.title}, their mixture"
        with doing("drawing the mixture"):
            draw_mixture(flow, replicas.runs[0], replicas.folder, f"{title}: {headline(together)}")
    replicas.report_whole("completed", mixture=together)
    for text in report_of_several(
        config, replicas.folder.path, progress, replicas.spreads, together,
        steps=[run.progress.step for run in replicas.runs], parameters=replicas.runs[0].parameters,
    ):  # fmt: skip
        log.info(text)
