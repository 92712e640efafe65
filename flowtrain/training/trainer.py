"""The loop: one training run from top to bottom: step, log, validate, checkpoint, stop, report."""

import logging
import math
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowtrain.config.schema import Config, refuse_idle, validate
from flowtrain.errors import CheckpointError, TrainingError
from flowtrain.evaluation.checks import warnings_about
from flowtrain.evaluation.metrics import evaluate, reverse, training_metrics
from flowtrain.evaluation.tags import tagged
from flowtrain.files import remove_leftovers
from flowtrain.flows.ode import SolverError, solver_errors
from flowtrain.progress import doing, done, part
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.migrate import saved_config
from flowtrain.runs.result import environment, read_result, write_failed_start
from flowtrain.training.compiled import compile_steps
from flowtrain.training.figures import animate, draw, draw_curves
from flowtrain.training.objectives import Objective, Scalars
from flowtrain.training.report import final_report, headline
from flowtrain.training.resume import reconcile, refuse_unnamed_code, warm_start
from flowtrain.training.run import CALM, Run, build_run
from flowtrain.training.schedule import finished, phase_at, progress_fraction
from flowtrain.training.signals import catch_signals
from flowtrain.training.state import Progress
from flowtrain.training.tracking import Tracker

log = logging.getLogger("flowtrain")

Hopeless = Callable[[int, dict[str, float]], bool]

GAUSSIAN_KEPT = (
    "no step made the validation NLL better than the start, the best Gaussian of the rows (its "
    "tails bent, if model.whitening=johnson): it is kept; more rows would show more"
)


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
        return self.metrics.get("kl/val", self.metrics["nll/val"])


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
        f"{len(run.splits.train.x):,}",
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
                density_known=run.density is not None,
                logger=config.logger,
            ) as tracker,
            catch_signals() as caught,
            telling_memory(config),
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


def open_or_build(config: Config, folder: RunFolder, saved: dict[str, Any] | None) -> Run:
    """Build a run, at step 0 or as a checkpoint left it.

    Args:
        config: of the run.
        folder: of the run; what a killed process left half written is removed.
        saved: the checkpoint, or None.

    Raises:
        UserError: as `train`.

    >>> from flowtrain.runs.load import open_run
    >>> folder, config = RunFolder(tmp_path), open_run(run_folder).config
    >>> saved = checkpoint.read(run_folder / "checkpoints" / "last.pt")
    >>> [open_or_build(config, folder, each).state.progress.step for each in (None, saved)]
    [0, 6]
    """
    for each in (folder.path, folder.checkpoint("last").parent, folder.figure("")):
        remove_leftovers(each)
    try:
        config.logger.refuse_if_not_installed()
        with doing("building"), telling_memory(config):
            run = build_run(config, folder)
        if saved is None:
            refuse_idle(config, dim=run.state.flow.dim)
        if saved is None and config.init_from is not None:
            warm_start(run.state, run.config)
        if config.trainer.compile:
            compile_steps(run)
    except Exception as error:
        if saved is None:
            report_failed_start(config, folder, error)
        raise
    if saved is not None:
        run.state.load_state_dict(saved)
        log.info("resuming at step %d", run.state.progress.step)
    return run


@contextmanager
def telling_memory(config: Config) -> Iterator[None]:
    """Tell an allocation that fails, on the host or a device, as a `TrainingError`.

    Raises:
        TrainingError: with the sizes that ask for memory, and what to change.

    >>> from flowtrain.runs.load import open_run
    >>> try:
    ...     with telling_memory(open_run(run_folder).config):
    ...         raise MemoryError
    ... except TrainingError as error:
    ...     str(error)[:45]
    'out of memory, with trainer.batch_size=32 and'
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("out of memory", "can't allocate memory", "not enough memory")
        known = isinstance(error, MemoryError) or any(each in str(error) for each in words)
        if not known:
            raise
        raise TrainingError(
            f"out of memory, with trainer.batch_size={config.trainer.batch_size} and "
            f"evaluation.batch_size={config.evaluation.batch_size} of a {config.model.name}: "
            "try smaller ones; checkpoints are kept"
        ) from error


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
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> report_interrupted(run)
    >>> read_result(run.folder)["status"]
    'interrupted'
    """
    run.report("interrupted")
    log.info("interrupted at step %d; go on with", run.state.progress.step)
    log.info("  flowtrain %s", shlex.quote(f"resume={run.folder.path}"))


def report_failed_start(config: Config, folder: RunFolder, error: Exception) -> None:
    """Leave a result.json that says why a run could not begin, if the folder can be written.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config
    >>> report_failed_start(config, RunFolder(tmp_path), ValueError("no such device"))
    >>> read_result(RunFolder(tmp_path))["error"]
    'no such device'
    """
    with suppress(CheckpointError):
        write_failed_start(
            folder,
            str(error),
            model=config.model.name,
            data=config.data.name,
            seed=config.seed,
            config=saved_config(config),
        )


@dataclass(frozen=True)
class Batch:
    """What a step minimises, and on what.

    Attributes:
        objective: as it is at this moment of the run.
        x: points of the training split, (n, d).
        given: their conditions, (n, c), where the data have some.

    >>> from flowtrain.training.objectives import MaximumLikelihood
    >>> Batch(MaximumLikelihood(), torch.zeros(32, 2), ()).x.shape
    torch.Size([32, 2])
    """

    objective: Objective
    x: Tensor
    given: tuple[Tensor, ...]


def train_step(run: Run, tracker: Tracker) -> None:
    """Take one optimizer step on a random batch, and log it now and then.

    Raises:
        TrainingError: the loss or its gradient was NaN or infinite too often in a row.

    >>> from flowtrain.runs.load import open_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)  # a step's log begins with its metrics
    ...     train_step(run, tracker)
    >>> run.state.progress.step
    1
    """
    began = time.monotonic()
    batch = begin_step(run)
    try:
        loss, scalars = batch.objective(run.trained, batch.x, run.state.generator, *batch.given)
        with solver_errors():
            loss.backward()
    except SolverError as error:
        count_failure(run, str(error))
        return
    if end_step(run, tracker, loss.detach(), scalars):
        tracker.pace.count(loss.item(), time.monotonic() - began)
        done(1.0, *tracker.pace.details(run.state.progress, run.config.trainer.max_steps))


def begin_step(run: Run) -> Batch:
    """Begin a step: set the learning rate, draw a batch, forget the gradient of the step before.

    >>> from flowtrain.runs.load import open_run
    >>> begin_step(build_run(open_run(run_folder).config, RunFolder(tmp_path))).x.shape
    torch.Size([32, 2])
    """
    config, state, progress = run.config, run.state, run.state.progress
    phase, phase_done = phase_at(run.phases, progress_fraction(config, progress))
    state.optimizer.lr = config.scheduler.lr(phase.max_lr, phase_done)
    data = run.splits.train
    rows = torch.randint(
        len(data.x), (config.trainer.batch_size,), generator=state.generator, device=run.device
    )
    given = () if data.context is None else (data.context[rows],)
    progress.step += 1
    run.weights.zero_gradient()
    return Batch(phase.at(phase_done), data.x[rows], given)


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

    >>> from flowtrain.runs.load import open_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     end_step(run, tracker, torch.tensor(float("nan")), dict)
    False
    """
    config, state, progress = run.config, run.state, run.state.progress
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

    >>> from flowtrain.runs.load import open_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> count_failure(run, "the loss is NaN")
    >>> run.state.progress.failures, run.state.progress.skipped
    (1, 1)
    """
    progress = run.state.progress
    progress.failures += 1
    progress.skipped += 1
    log.warning("step %d skipped: %s", progress.step, what)
    if progress.failures >= run.config.trainer.max_failures:
        raise TrainingError(
            f"stopped at step {progress.step}: {progress.failures} steps in a row failed "
            f"({what}). The checkpoint in {run.folder.checkpoint('last').parent} is from before; "
            f"{CALM}"
        )


def run_validation(run: Run, tracker: Tracker) -> None:
    """Evaluate on the validation split, draw the densities, and write the checkpoints.

    The untrained flow is not drawn: training begins a second earlier, of a continuous flow three.

    Raises:
        CheckpointError: a checkpoint cannot be written.
        TrainingError: the evaluation's solver denies the weights a likelihood.

    >>> from flowtrain.runs.load import open_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)
    >>> sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    ['best.pt', 'last.pt']
    """
    config, progress = run.config, run.state.progress
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
            tracker.picture(progress.step, f"figures/{kind}", image)
        progress.drawing_seconds += time.monotonic() - began
    tracker.rate(progress.step)  # the next rate counts from here: an evaluation is no step


def validate_weights(run: Run, tracker: Tracker) -> None:
    """Evaluate on the validation split, log the figures and write the checkpoints.

    Raises:
        CheckpointError, TrainingError: as `run_validation`.

    >>> from flowtrain.runs.load import open_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     validate_weights(run, tracker)
    >>> run.state.progress.metrics["kl/val"] > 0
    True
    """
    config, state, progress = run.config, run.state, run.state.progress
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
    value = metrics.get(config.objective.criterion, math.inf)  # there is no infinite KL
    better = value < progress.best or progress.last_eval_step < 0
    progress.metrics = metrics
    progress.last_eval_step = progress.step
    progress.stale += 1
    if better:
        progress.best, progress.best_step, progress.stale = value, progress.step, 0
    floor = {} if run.density is None else {"nll/entropy": run.density.entropy}
    tracker.scalars(progress, {**metrics, **floor})
    if better:
        run.save("best")
    run.save("last")


def finish(run: Run, tracker: Tracker) -> None:
    """Evaluate the best weights on the test split and by quadrature; draw; print the final report.

    Raises:
        TrainingError: the last weights have no finite NLL: the training has diverged.

    >>> from flowtrain.runs.load import open_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)  # it saves the best weights, here the first
    ...     finish(run, tracker)
    >>> run.state.progress.metrics["kl/test"] > 0
    True
    """
    config, progress = run.config, run.state.progress
    last = progress.metrics
    judge(run, tracker)
    if config.trainer.figures:
        with doing("drawing the best weights"):
            draw(run, "final", step=progress.best_step)  # TensorBoard has the last step's
            draw_curves(run)
    if config.trainer.animation:
        with doing("drawing the animation"):
            animate(run)
    untrained = progress.best_step == 0 < progress.step and config.init_from is None
    gaussian = untrained and config.model.whitening != "columns"
    if gaussian:
        log.info(GAUSSIAN_KEPT)
    for line in warnings_about(progress.metrics, untrained=untrained and not gaussian):
        log.warning(line)
    for line in final_report(
        config, run.folder.path, progress, parameters=run.parameters, last=last
    ):
        log.info(line)


def judge(run: Run, tracker: Tracker) -> None:
    """Load the best weights, evaluate them on the test split and by quadrature, log the figures.

    Where the best weights cannot be read, the last ones are judged.

    Raises:
        TrainingError: the last weights have no finite NLL: the training has diverged.

    >>> from flowtrain.runs.load import open_run
    >>> run = build_run(open_run(run_folder).config, RunFolder(tmp_path))
    >>> with Tracker(run.folder, step=-1, evaluated=-1) as tracker:
    ...     run_validation(run, tracker)
    ...     judge(run, tracker)
    >>> "mass/test" in run.state.progress.metrics
    True
    """
    config, state, progress = run.config, run.state, run.state.progress
    flow, last = state.eval_flow, progress.metrics
    if not math.isfinite(last["nll/val"]):
        raise TrainingError(
            f"the training has diverged: after {progress.step} steps NLL is {last['nll/val']:g}. "
            f"{run.folder.checkpoint('best')} is of step {progress.best_step}; {CALM}"
        )
    try:
        checkpoint.load_eval_weights(flow, checkpoint.read(run.folder.checkpoint("best")))
    except CheckpointError as error:
        log.warning("%s: the last weights are judged instead", error)
        progress.best = last.get(config.objective.criterion, math.inf)
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
    tracker.summary(config.model_dump(), progress.metrics)
