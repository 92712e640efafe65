"""What a run does with its weights between steps and at its end: evaluate, keep, draw, report."""

import logging
import math
import time

from flowtrain.errors import CheckpointError, TrainingError
from flowtrain.evaluation.checks import warnings_about
from flowtrain.evaluation.metrics import evaluate, training_metrics
from flowtrain.evaluation.reverse import reverse
from flowtrain.evaluation.tags import tagged
from flowtrain.flows.ode import SolverError
from flowtrain.progress import doing
from flowtrain.runs import checkpoint
from flowtrain.training.figures import animate, draw, draw_curves
from flowtrain.training.report import final_report, headline
from flowtrain.training.run import CALM, Run
from flowtrain.training.tracking import Tracker

log = logging.getLogger("flowtrain")

GAUSSIAN_KEPT = (
    "no step made the validation NLL better than the start, a Gaussian fitted to the rows as "
    "model.whitening says: it is kept; more rows would show more"
)


def run_validation(run: Run, tracker: Tracker) -> None:
    """Evaluate on the validation split, draw the densities, and write the checkpoints.

    Nothing is drawn at step 0: that saves a second, and three for a continuous flow.

    Raises:
        CheckpointError: a checkpoint cannot be written.
        TrainingError: the evaluation's solver denies the weights a likelihood.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)
    >>> sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    ['best.pt', 'last.pt']
    """
    config, progress = run.config, run.progress
    validate_weights(run, tracker)
    log.info("step %6d  %s", progress.step, headline(progress.metrics))
    for line in warnings_about(progress.metrics):
        log.warning(line)
    evaluations = progress.step // config.trainer.evaluate_every
    if progress.step and config.trainer.figures and evaluations % config.trainer.draw_every == 0:
        began = time.monotonic()
        with doing(f"drawing step {progress.step:,}"):
            images = draw(run, f"step-{progress.step:06d}", step=progress.step)
        for kind, image in images.items():
            tracker.logger.picture(progress.step, f"figures/{kind}", image)
        progress.drawing_seconds += time.monotonic() - began
    tracker.rate(progress.step)  # the next rate counts from here: an evaluation is no step


def validate_weights(run: Run, tracker: Tracker) -> None:
    """Evaluate on the validation split, log the figures and write the checkpoints.

    Raises:
        CheckpointError, TrainingError: as `run_validation`.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     validate_weights(run, tracker)
    >>> run.progress.metrics["kl/val"] > 0
    True
    """
    config, state, progress = run.config, run.state, run.progress
    run.save("last")  # an evaluation that is cut short costs no step
    began = time.monotonic()
    try:
        with doing(f"evaluating step {progress.step:,}"):
            metrics = training_metrics(
                state.eval_flow,
                run.splits,
                training_solver=config.training_solver,
                batch_size=config.evaluation.batch_size,
            )
            if config.objective.needs_density and (known := run.splits.val.density) is not None:
                batch_size = config.evaluation.batch_size
                metrics |= tagged(reverse(state.eval_flow, known, batch_size=batch_size), "val")
    except SolverError as error:
        if progress.last_eval_step < 0:
            raise
        raise TrainingError(
            f"step {progress.step} cannot be evaluated: {error}. "
            f"{run.folder.checkpoint('best')} is of step {progress.best_step}"
        ) from error
    if progress.step:  # the first one is before training
        progress.evaluation_seconds += time.monotonic() - began
    value = config.objective.value(metrics)  # there is no infinite KL
    better = value < progress.best or progress.last_eval_step < 0
    progress.metrics = metrics
    progress.last_eval_step = progress.step
    progress.stale += 1
    if better:
        progress.best, progress.best_step, progress.stale = value, progress.step, 0
    entropy = math.nan if run.density is None else run.density.entropy
    floor = {"nll/entropy": entropy} if math.isfinite(entropy) else {}
    tracker.scalars(progress, {**metrics, **floor})
    if better:
        run.save("best")
    run.save("last")


def finish(run: Run, tracker: Tracker) -> None:
    """Evaluate the best weights on the test split and by quadrature; draw; print the final report.

    Raises:
        TrainingError: the last weights have no finite NLL: the training has diverged.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)  # it saves the best weights, here the first
    ...     finish(run, tracker)
    >>> run.progress.metrics["kl/test"] > 0
    True
    """
    config, progress = run.config, run.progress
    last, began = progress.metrics, time.monotonic()
    judge(run, tracker)
    if config.trainer.figures:
        with doing("drawing the best weights"):
            draw(run, "final", step=progress.best_step)  # TensorBoard has the last step's
            draw_curves(run)
    if config.trainer.animation:
        with doing("drawing the animation"):
            animate(run)
    kept = run.start_kept
    if kept == "gaussian":
        log.info(GAUSSIAN_KEPT)
    for line in warnings_about(
        progress.metrics, untrained=kept == "untrained", base=config.model.base
    ):
        log.warning(line)
    closing = time.monotonic() - began
    for line in final_report(
        config,
        run.folder.path,
        progress,
        parameters=run.parameters,
        last=last,
        closing=closing,
    ):
        log.info(line)


def judge(run: Run, tracker: Tracker) -> None:
    """Load the best weights, evaluate them on the test split and by quadrature, log the figures.

    Where the best weights cannot be read, the last ones are judged.

    Raises:
        TrainingError: the last weights have no finite NLL: the training has diverged.

    >>> from flowtrain.runs.folder import RunFolder
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.run import build_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)
    ...     judge(run, tracker)
    >>> "mass/test" in run.progress.metrics
    True
    """
    config, state, progress = run.config, run.state, run.progress
    flow, last = state.eval_flow, progress.metrics
    lost = last.get("nll/val", -last.get("elbo/val", -math.inf))
    if not math.isfinite(lost):
        what = "NLL" if "nll/val" in last else "-ELBO"
        raise TrainingError(
            f"the training has diverged: after {progress.step} steps {what} is {lost:g}. "
            f"{run.folder.checkpoint('best')} is of step {progress.best_step}; {CALM}"
        )
    try:
        checkpoint.load_eval_weights(flow, checkpoint.read(run.folder.checkpoint("best")))
    except CheckpointError as error:
        log.warning("%s: the last weights are judged instead", error)
        progress.best = config.objective.value(last)
        progress.best_step = progress.step
        run.save("best")
    with doing("closing evaluation"):
        progress.metrics = evaluate(
            flow,
            run.splits,
            training_solver=config.training_solver,
            grid=config.evaluation.grid,
            batch_size=config.evaluation.batch_size,
        )
    logged = {*last, "nll/entropy"}  # at the last validation
    final = {tag: value for tag, value in progress.metrics.items() if tag not in logged}
    tracker.scalars(progress, final)
    tracker.logger.summary(config.model_dump(), progress.metrics)
