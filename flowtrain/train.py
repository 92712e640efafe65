"""One training run, top to bottom: build, step, log, evaluate, checkpoint, stop, report."""

import logging
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flowtrain import checkpoint
from flowtrain.build import (
    Part,
    build_flow,
    build_optimizer,
    build_parts,
    build_pools,
    derive_seeds,
    learning_rate,
    part_at,
    pick_device,
)
from flowtrain.checkpoint import Progress, TrainState, load_measured
from flowtrain.config import Config, validate
from flowtrain.data import Density
from flowtrain.data.pools import Pool
from flowtrain.errors import CheckpointError, TrainingError
from flowtrain.evaluate import evaluate, progress_figures
from flowtrain.flows import ContinuousFlow
from flowtrain.flows.ode import SolverError, solver_errors
from flowtrain.report import closing_table, describe, doubts, environment, read_result, write_result
from flowtrain.resume import reconcile, warm_start
from flowtrain.tracking import Tracker

if TYPE_CHECKING:
    from flowtrain import plots

log = logging.getLogger("flowtrain")


@dataclass(frozen=True)
class Result:
    """How a run ended: its status, its last metrics and the signal that interrupted it, if any."""

    status: str  # completed | interrupted
    step: int
    metrics: dict[str, float]
    signal: int | None = None

    @property
    def metric(self) -> float:
        """The figure that sweeps minimise: validation KL where it is exact, else NLL."""
        return self.metrics.get("kl/val", self.metrics["nll/val"])


@dataclass(frozen=True)
class Run:
    """What a run is made of. Only its state changes."""

    config: Config
    folder: Path
    device: torch.device
    pools: dict[str, Pool]
    parts: list[Part]
    state: TrainState

    @property
    def density(self) -> Density | None:
        """The law that the points were drawn from, where it is known."""
        return self.pools["test"].density

    @property
    def parameters(self) -> int:
        """The number of trained weights."""
        return sum(weight.numel() for weight in self.state.flow.parameters())

    def save(self, name: str) -> None:
        """Write the whole state to checkpoints/<name>.pt."""
        path = self.folder / "checkpoints" / f"{name}.pt"
        checkpoint.save(path, self.state.state_dict(self.config.model_dump()))

    def report(self, status: str, **more: Any) -> None:
        """Write result.json."""
        progress = self.state.progress
        write_result(
            self.folder,
            status=status,
            **more,
            model=self.config.model.name,
            data=self.config.data.name,
            seed=self.config.seed,
            parameters=self.parameters,
            step=progress.step,
            best_step=progress.best_step,
            skipped_steps=progress.skipped,
            seconds=round(progress.seconds, 3),
            metrics=progress.metrics,
            environment=environment(self.device),
        )


def train(config: Config, folder: Path, *, asked: dict[str, Any] | None = None) -> Result:
    """Train the flow that a config describes, in a run folder; go on if the folder holds a run.

    Args:
        config: the whole config; of a run that goes on, only what `asked` names counts.
        folder: the run folder.
        asked: the settings named by whoever resumes the run; all of them by default.

    Raises:
        UserError: a setting contradicts the run's, the device is not there, a checkpoint cannot
            be read or written, or the loss stays NaN or infinite.
    """
    last = folder / "checkpoints" / "last.pt"
    saved = checkpoint.read(last) if last.exists() else None
    if saved is not None:
        asked = config.model_dump() if asked is None else asked
        config = validate(reconcile(saved["config"], asked))
        progress = Progress(**saved["progress"])
        if finished(config, progress) and read_result(folder).get("status") == "completed":
            log.info("finished already, at step %d: %s", progress.step, folder)
            log.info("to train on, ask for more: trainer.max_steps=%d", 2 * progress.step)
            return Result("completed", progress.step, read_result(folder)["metrics"])

    run = build_run(config, folder)
    if saved is not None:
        run.state.load_state_dict(saved)
        log.info("resuming at step %d", run.state.progress.step)
    elif config.init_from is not None:
        warm_start(run.state, config)
    progress = run.state.progress
    run.report("running")
    try:
        recorded = -1 if saved is None else progress.step
        with Tracker(folder, step=recorded) as tracker, catch_signals() as caught:
            if saved is None:
                tracker.text("config", config.model_dump())
                tracker.text("environment", environment(run.device))
                measure(run, tracker)
            clock = time.monotonic() - progress.seconds
            while not finished(config, progress) and not caught:
                step(run, tracker)
                progress.seconds = time.monotonic() - clock
                if progress.step % config.trainer.evaluate_every == 0:
                    measure(run, tracker)
            if not finished(config, progress):
                run.save("last")
                run.report("interrupted")
                log.info("interrupted at step %d; go on with", progress.step)
                log.info("  flowtrain %s", shlex.quote(f"resume={folder}"))
                return Result("interrupted", progress.step, progress.metrics, caught[0])
            if progress.measured < progress.step:
                measure(run, tracker)
            close(run, tracker)
    except Exception as error:
        with suppress(CheckpointError):  # a full disk may refuse this, too
            run.report("failed", error=str(error))
        raise
    run.report("completed")
    return Result("completed", progress.step, progress.metrics, caught[0] if caught else None)


def build_run(config: Config, folder: Path) -> Run:
    """Build everything that a config names, at step 0."""
    device = pick_device(config.trainer.device, config.dtype)
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    seeds = derive_seeds(config)
    pools = build_pools(config, device)
    x = pools["train"].x
    flow = build_flow(config, x.mean(0).cpu(), x.std(0).cpu(), seed=seeds["weights"]).to(device)
    average = None
    if config.trainer.ema:
        average = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(config.trainer.ema))
    state = TrainState(
        flow=flow,
        average=average,
        optimizer=build_optimizer(config, flow.parameters()),
        generator=torch.Generator(device).manual_seed(seeds["batches"]),
        progress=Progress(),
    )
    return Run(config, folder, device, pools, build_parts(config), state)


def finished(config: Config, progress: Progress) -> bool:
    """Say whether a run has used its steps, its time or its patience."""
    patience = config.trainer.patience
    impatient = patience is not None and progress.stale >= patience
    return done(config, progress) >= 1 or impatient


def done(config: Config, progress: Progress) -> float:
    """Return how much of a run is done, by steps or by time, whichever is further."""
    by_steps = progress.step / config.trainer.max_steps
    if config.trainer.max_seconds is None:
        return min(by_steps, 1.0)
    return min(max(by_steps, progress.seconds / config.trainer.max_seconds), 1.0)


def step(run: Run, tracker: Tracker) -> None:
    """Take one optimizer step on a random batch, and log it now and then.

    Raises:
        TrainingError: the loss or its gradient was NaN or infinite too often in a row.
    """
    config, state, progress = run.config, run.state, run.state.progress
    part, part_done = part_at(run.parts, done(config, progress))
    lr = learning_rate(config.scheduler, part.peak, part_done)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    pool = run.pools["train"].x
    rows = torch.randint(
        len(pool), (config.trainer.batch_size,), generator=state.generator, device=run.device
    )
    progress.step += 1
    state.optimizer.zero_grad()
    try:
        loss, scalars = part.objective(state.flow, pool[rows], state.generator)
        with solver_errors():
            loss.backward()
    except SolverError as error:
        count_failure(run, str(error))
        return
    norm = torch.nn.utils.clip_grad_norm_(
        state.flow.parameters(), config.trainer.clip or float("inf")
    )
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        count_failure(run, f"the loss is {loss.item():g}, its gradient's norm {norm.item():g}")
        return
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.flow)
    progress.failures = 0
    if progress.step % config.trainer.log_every == 0:
        values = {
            "loss": loss.item(),
            **scalars(),
            "grad_norm": norm.item(),
            "lr": lr,
            "speed/steps_per_second": (rate := tracker.rate(progress.step)),
        }
        if "nfe/forward" in values:
            values["speed/milliseconds_per_evaluation"] = 1e3 / rate / values["nfe/forward"]
        tracker.scalars(progress, values)
        status = f"step {progress.step}  {describe(progress.metrics)}"
        if "nfe/forward" in values:
            status += f"  nfe {values['nfe/forward']:.0f}"
        tracker.progress(done(config, progress), f"{status}  {rate:.3g} steps/s")


def count_failure(run: Run, what: str) -> None:
    """Skip a step that failed, and stop the run after several in a row.

    Raises:
        TrainingError: with the last good checkpoint and what to change.
    """
    progress = run.state.progress
    progress.failures += 1
    progress.skipped += 1
    log.warning("step %d skipped: %s", progress.step, what)
    if progress.failures >= run.config.trainer.max_failures:
        raise TrainingError(
            f"stopped at step {progress.step}: {progress.failures} steps in a row failed "
            f"({what}). The checkpoint in {run.folder / 'checkpoints'} is from before; "
            "try a lower optimizer.lr, a smaller trainer.clip or a longer scheduler.warmup"
        )


def measure(run: Run, tracker: Tracker) -> None:
    """Evaluate on the validation pool, draw the densities, and write the checkpoints."""
    config, state, progress = run.config, run.state, run.state.progress
    flow = state.measured.eval()
    metrics = progress_figures(
        flow, run.pools["train"], run.pools["validation"], batch_size=config.evaluation.batch_size
    )
    progress.metrics = metrics
    floor = {} if run.density is None else {"nll/entropy": run.density.entropy}
    tracker.scalars(progress, {**metrics, **floor})
    log.info("step %6d  %s", progress.step, describe(metrics))
    for line in doubts(metrics):
        log.warning(line)
    if config.trainer.figures:
        for kind, image in draw(run, f"step-{progress.step:06d}").items():
            tracker.picture(progress.step, f"figures/{kind}", image)
    state.flow.train()

    progress.measured = progress.step
    progress.stale += 1
    if metrics["nll/val"] < progress.best:
        progress.best, progress.best_step, progress.stale = metrics["nll/val"], progress.step, 0
        run.save("best")
    run.save("last")
    tracker.rate(progress.step)  # the next rate counts from here: an evaluation is no step


def close(run: Run, tracker: Tracker) -> None:
    """Measure the best weights on the test pool and by quadrature; print the closing table."""
    config, state, progress = run.config, run.state, run.state.progress
    flow = state.measured.eval()
    load_measured(flow, checkpoint.read(run.folder / "checkpoints" / "best.pt"))
    progress.metrics = evaluate(
        flow,
        run.pools,
        grid=config.evaluation.grid,
        batch_size=config.evaluation.batch_size,
    )
    final = {tag: value for tag, value in progress.metrics.items() if tag.endswith("/test")}
    tracker.scalars(progress, final)  # the others have their point of this step
    tracker.hparams(config.model_dump(), progress.metrics)
    if config.trainer.figures:
        draw(run, "final")  # TensorBoard has the last step's
    if config.trainer.animation:
        animate(run)
    for line in closing_table(config, run.folder, state.progress, parameters=run.parameters):
        log.info(line)
    for line in doubts(progress.metrics):
        log.warning(line)


def draw(run: Run, name: str) -> dict[str, "plots.Image"]:
    """Draw densities and samples, a continuous flow's paths, or a table's marginals.

    They go into figures/<kind>-<name>.png.
    """
    from flowtrain import plots

    config, progress, density = run.config, run.state.progress, run.density
    flow, pool = run.state.measured, run.pools["validation"]
    title = f"{config.model.name} on {config.data.name}, step {progress.step}: "
    title += describe(progress.metrics)
    z = flow.sample_base(len(pool.x), torch.Generator(run.device).manual_seed(config.seed))
    with torch.no_grad():
        samples = flow.transport(z)
    if density is None:
        figures = {"marginals": plots.marginals_figure(pool.x, samples, pool.columns, title=title)}
    else:
        rows = config.evaluation.batch_size
        figures = {
            "density": plots.density_figure(
                flow, density, pool.x, samples, title=title, batch_size=rows
            )
        }
        if isinstance(flow, ContinuousFlow):
            figures["paths"] = plots.path_figure(flow, density, z[:2000], title=title)
    images = {kind: plots.pixels(figure) for kind, figure in figures.items()}
    for kind, image in images.items():
        plots.save_png(image, run.folder / "figures" / f"{kind}-{name}.png")
    return images


def animate(run: Run) -> None:
    """Write figures/flow.gif: samples and density on their way from base to data."""
    from flowtrain import plots

    flow = run.state.measured
    assert isinstance(flow, ContinuousFlow)
    assert run.density is not None
    z = flow.sample_base(2000, torch.Generator(run.device).manual_seed(run.config.seed))
    frames = plots.animation(
        flow, run.density, z, frames=31, batch_size=run.config.evaluation.batch_size
    )
    plots.save_gif(frames, run.folder / "figures" / "flow.gif")


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM, so that a step can end; a second one acts as ever."""
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)

    def remember(number: int, frame: object) -> None:
        caught.append(number)
        for each in signals:
            signal.signal(each, before[each])

    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return
    before = {each: signal.signal(each, remember) for each in signals}
    try:
        yield caught
    finally:
        for each in signals:
            signal.signal(each, before[each])
