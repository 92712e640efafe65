"""A step: draw a batch, take the gradient of its loss, clip it, move the weights, log it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtrain.errors import TrainingError
from flowtrain.flows.ode import SolverError, solver_errors
from flowtrain.progress import done
from flowtrain.training.cuda_graph import CudaGraph
from flowtrain.training.objectives import Objective, Scalars
from flowtrain.training.run import CALM, Run
from flowtrain.training.schedule import phase_at, progress_fraction
from flowtrain.training.tracking import Tracker

log = logging.getLogger("flowtrain")


@dataclass(frozen=True)
class Batch:
    """What a step minimises, and on what.

    Attributes:
        objective: as it is at this moment of the run.
        x: points of the training split, (n, d).
        given: their conditions, (n, c), where the data have some.
        graph: of the objective's gradient, where it is recorded.

    >>> from flowtrain.training.objectives import MaximumLikelihood
    >>> Batch(MaximumLikelihood(), torch.zeros(32, 2), ()).x.shape
    torch.Size([32, 2])
    """

    objective: Objective
    x: Tensor
    given: tuple[Tensor, ...]
    graph: CudaGraph | None = None


def train_step(run: Run, tracker: Tracker) -> None:
    """Take one optimizer step on a random batch, and log it now and then.

    Raises:
        TrainingError: the loss or its gradient was NaN or infinite too often in a row.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> from flowtrain.training.validation import run_validation
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)  # a step's log begins with its metrics
    ...     train_step(run, tracker)
    >>> run.progress.step
    1
    """
    began = time.monotonic()
    batch = begin_step(run)
    try:
        take = batch.graph or gradient(run, batch.objective)
        loss, scalars = take(batch.x, *batch.given)
    except SolverError as error:
        count_failure(run, str(error))
        return
    if end_step(run, tracker, loss, scalars):
        taken = time.monotonic() - began
        tracker.pace.count(loss.item(), taken, of=type(batch.objective))
        done(1.0, *tracker.pace.details(run.progress, run.config.trainer.max_steps))


def gradient(run: Run, objective: Objective) -> Callable[..., tuple[Tensor, Scalars]]:
    """Return a function of points and their conditions that adds its loss's gradient to a run's.

    What the function returns is the loss, (), detached, and the scalars of the objective.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> loss, scalars = gradient(run, run.phases[0].objective)(run.splits.train.x)
    >>> loss.requires_grad, bool(run.weights.gradient.any())
    (False, True)
    """

    def of(x: Tensor, *given: Tensor) -> tuple[Tensor, Scalars]:
        loss, scalars = objective(run.trained, x, run.state.generator, *given)
        with solver_errors():
            loss.backward()
        return loss.detach(), scalars

    return of


def begin_step(run: Run) -> Batch:
    """Begin a step: set the learning rate, draw a batch, forget the gradient of the step before.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> begin_step(build_run(open_run(run_folder).config, RunFolder(tmp_path))).x.shape
    torch.Size([32, 2])
    """
    config, state, progress = run.config, run.state, run.progress
    phase, phase_done = phase_at(run.phases, progress_fraction(config, progress))
    state.optimizer.lr = config.scheduler.lr(phase.max_lr, phase_done)
    x, *given = run.draw(state.generator)
    progress.step += 1
    run.weights.zero_gradient()
    return Batch(phase.at(phase_done), x, tuple(given), phase.graph)


def end_step(run: Run, tracker: Tracker, loss: Tensor, scalars: Scalars) -> bool:
    """End a step: clip the gradient, move the weights, log now and then.

    Args:
        run: whose weights have the gradient of the loss.
        tracker: of the run.
        loss: (), detached.
        scalars: of the objective.

    Returns:
        Whether the step was taken: one whose loss or gradient is NaN or infinite is skipped.

    Raises:
        TrainingError: too many steps in a row were skipped.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     end_step(run, tracker, torch.tensor(float("nan")), dict)
    False
    """
    config, state, progress = run.config, run.state, run.progress
    norm = run.weights.clip(config.trainer.clip)
    if not torch.isfinite(loss + norm):  # one look at the device
        count_failure(run, f"the loss is {loss.item():g}, its gradient's norm {norm.item():g}")
        return False
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.flow)
    progress.failures = 0
    if progress.step % config.trainer.log_every == 0:
        values = {
            "loss": loss.item(),
            **scalars(),
            "grad_norm": norm.item(),
            "lr": state.optimizer.lr,
            "speed/steps_per_second": (rate := tracker.rate(progress.step)),
        }
        if "nfe/forward" in values:
            values["speed/milliseconds_per_evaluation"] = 1e3 / rate / values["nfe/forward"]
        tracker.scalars(progress, values)
        tracker.pace.evaluations = values.get("nfe/forward")
    return True


def count_failure(run: Run, what: str) -> None:
    """Skip a step that failed, and stop the run after several in a row.

    Args:
        run: the run.
        what: failed, for the log.

    Raises:
        TrainingError: with the last good checkpoint and what to change.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> count_failure(run, "the loss is NaN")
    >>> run.progress.failures, run.progress.skipped
    (1, 1)
    """
    progress = run.progress
    progress.failures += 1
    progress.skipped += 1
    log.warning("step %d skipped: %s", progress.step, what)
    if progress.failures >= run.config.trainer.max_failures:
        raise TrainingError(
            f"stopped at step {progress.step}: {progress.failures} steps in a row failed "
            f"({what}). The checkpoint in {run.folder.checkpoint('last').parent} is from before; "
            f"{CALM}"
        )
