"""What a run is made of: built from its config, saved to its folder."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flowtrain.build import build_flow, build_splits, derive_seeds, fit_whitening, pick_device
from flowtrain.config.memory import refuse_beyond_memory
from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, marked
from flowtrain.config.sizing import settle
from flowtrain.data.condition import ContextEncoder
from flowtrain.data.condition_column import Number
from flowtrain.data.splits import Splits
from flowtrain.densities.conditional import Conditional
from flowtrain.densities.density import Density
from flowtrain.errors import CheckpointError, ConfigError, TrainingError
from flowtrain.evaluation.checks import start_kept
from flowtrain.flows.flow import Flow
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.migrate import saved_config
from flowtrain.runs.result import environment, named, write_result
from flowtrain.text import amount
from flowtrain.training.compiled import compile_flow
from flowtrain.training.cuda_graph import refuse_without_cuda
from flowtrain.training.schedule import Phase, build_phases
from flowtrain.training.state import Progress, TrainState
from flowtrain.training.weights import Weights

log = logging.getLogger("flowtrain")
# What may help a training that diverges.
CALM = "try a lower optimizer.lr, a smaller trainer.clip or a longer scheduler.warmup"


@dataclass(frozen=True)
class Run:
    """What a run is made of. Only its state changes."""

    config: Config
    folder: RunFolder
    device: torch.device
    splits: Splits
    phases: list[Phase]
    state: TrainState
    weights: Weights
    trained: Flow  # what objectives are given: the state's, or the same weights compiled

    @property
    def density(self) -> Density | Conditional | None:
        """The density that the points were sampled from, p(x) or p(x | c), where it is known."""
        return self.splits.val.density

    @property
    def progress(self) -> Progress:
        """Where it stands."""
        return self.state.progress

    @property
    def parameters(self) -> int:
        """The number of trained weights."""
        return sum(weight.numel() for weight in self.state.flow.parameters())

    @property
    def start_kept(self) -> Literal["untrained", "gaussian"] | None:
        """What its best weights are where training improved on none of its own start."""
        return start_kept(
            best_step=self.progress.best_step,
            step=self.progress.step,
            init_from=self.config.init_from,
            whitening=self.config.model.whitening,
        )

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw a batch of the training split: points, (n, d), and their conditions, if any."""
        data, n = self.splits.train, self.config.trainer.batch_size
        rows = torch.randint(len(data.x), (n,), generator=generator, device=self.device)
        return tuple(each[rows] for each in (data.x, data.context) if each is not None)

    def save(self, name: str) -> None:
        """Write the whole state to checkpoints/<name>.pt.

        Raises:
            TrainingError: a weight is NaN or infinite; the checkpoint before stays.
            CheckpointError: the file cannot be written.
        """
        if not self.weights.vector.isfinite().all():
            raise TrainingError(
                f"a weight is NaN or infinite at step {self.progress.step}. The checkpoint "
                f"in {self.folder.checkpoint(name).parent} is from before; {CALM}"
            )
        state = self.state.state_dict(saved_config(self.config))
        state["columns"] = list(self.splits.val.columns)
        state["grid"] = list(self.splits.val.grid)
        if self.splits.table is not None:
            state["table"] = self.splits.table
        if (condition := self.splits.val.condition) is not None:
            state["condition"] = condition.state()
        checkpoint.save(self.folder.checkpoint(name), state)

    def rewind(self) -> None:
        """Stand where the last checkpoint does, if there is one that can be read."""
        with suppress(CheckpointError):
            saved = checkpoint.read(self.folder.checkpoint("last"))
            self.state.progress = Progress.restored(saved["progress"])

    def report(self, status: str, **more: Any) -> None:
        """Write result.json."""
        progress, table = self.progress, self.splits.table
        write_result(
            self.folder,
            status=status,
            **more,
            **named(self.config),
            **({} if table is None else {"table": table}),
            parameters=self.parameters,
            step=progress.step,
            best_step=progress.best_step,
            skipped_steps=progress.skipped,
            seconds=round(progress.seconds, 3),
            evaluation_seconds=round(progress.evaluation_seconds, 3),
            drawing_seconds=round(progress.drawing_seconds, 3),
            metrics=progress.metrics,
            environment=environment(self.device),
            config=saved_config(self.config),
        )


def refuse_unpaired(config: Config, condition: ContextEncoder) -> None:
    """Refuse a coupling within conditions where no two points have the same one.

    Raises:
        ConfigError: a condition is a number.
    """
    numbers = [column.name for column in condition.columns if isinstance(column, Number)]
    if numbers and getattr(config.objective, "coupling", None) == "optimal_transport":
        raise ConfigError(
            "objective.coupling: optimal_transport pairs points of one condition, and hardly two "
            f"have the same {numbers[0]}; leave it independent"
        )


def build_run(config: Config, folder: RunFolder) -> Run:
    """Build everything that a config names, at step 0."""
    device = pick_device(config.trainer.device, config.points_dtype)
    if config.trainer.capture:
        refuse_without_cuda(device)
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    seeds = derive_seeds(config)
    if config.data.dimensions is not None:
        refuse_beyond_memory(config, config.data.dimensions)  # before the points are drawn
    splits = build_splits(config, device)
    rows, columns = splits.train.x.shape
    config, settled = settle(config, rows=rows, columns=columns, device=device.type)
    learned = settled.keys() - set(marked(Config, Mark.INCIDENTAL))
    if learned:
        chosen = ", ".join(f"{key}={settled[key]}" for key in settled if key in learned)
        log.info("for %s rows of %s: %s", f"{rows:,}", amount(columns, "column"), chosen)
    refuse_beyond_memory(config, columns)
    if config.trainer.animation and columns != 2:  # a density of the user's own: known by now
        raise ConfigError(
            f"trainer.animation: {config.data.name} has no plane to animate in; leave it false"
        )
    standardize = fit_whitening(config, splits.train)
    condition = splits.train.condition
    if condition is not None:
        log.info("given of each point: %s", condition)
        refuse_unpaired(config, condition)
    flow = build_flow(
        config,
        standardize,
        seed=seeds["weights"],
        context_dim=0 if condition is None else condition.dim,
    ).to(device)
    flow.condition = condition
    average = None
    if config.trainer.ema:
        average = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(config.trainer.ema))
    weights = Weights(flow)
    state = TrainState(
        flow=flow,
        average=average,
        optimizer=config.optimizer.build(weights),
        generator=torch.Generator(device).manual_seed(seeds["batches"]),
        progress=Progress(),
    )
    phases = build_phases(config, flow)
    trained = compile_flow(flow) if config.trainer.compile else flow
    return Run(config, folder, device, splits, phases, state, weights, trained)
