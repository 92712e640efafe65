"""Load a finished run: its folder is enough, and no code that the folder names runs unasked."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from flowtrain.build import (
    blank_whitening,
    build_density,
    build_flow,
    build_splits,
    pick_device,
    split_data,
)
from flowtrain.config.schema import Config, validate
from flowtrain.data.condition import ContextEncoder
from flowtrain.data.source import unnamed
from flowtrain.data.splits import Splits
from flowtrain.densities.conditional import Conditional
from flowtrain.densities.density import Density
from flowtrain.errors import CheckpointError, UserError
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.ensemble import mixture
from flowtrain.flows.flow import Flow
from flowtrain.runs import checkpoint as checkpoints
from flowtrain.runs.existing import existing_checkpoint, existing_replica
from flowtrain.runs.folder import RunFolder
from flowtrain.text import listed, one_line


@dataclass(frozen=True)
class SavedRun:
    """A run from its folder: its config, and its flow in evaluation mode.

    Attributes:
        folder: of the run.
        config: the run's own.
        flow: with the weights it is judged by, averaged ones where the run kept an average.
        step: at which the weights were saved.
        condition: what reads the conditions of a flow of p(x | c) from a user's words.
        context: the one condition that its flow is given, (c,); None until `given`.
        members: the replicas of which its flow is the mixture; none of a single run.

    >>> run = open_run(ffjord_folder)
    >>> run.config.data.name, run.step, run.splits.test.x.shape, run.columns
    ('two_spirals', 6, torch.Size([64, 2]), ('x0', 'x1'))
    >>> run.with_solver({"name": "rk4", "step_size": 0.1}).flow.solver.name
    'rk4'
    """

    folder: Path
    config: Config
    flow: Flow
    step: int
    named: tuple[str, ...] = ()  # columns of the table that it learned; release 0.1 saved none
    table: str | None = None  # the fingerprint of that table; older runs saved none
    grid: tuple[float, ...] = ()  # the steps over which its columns were spread, if they were
    condition: ContextEncoder | None = None
    context: Tensor | None = None
    members: tuple["SavedRun", ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the coordinates: those of a table, which the checkpoint holds, or x0, ..."""
        return self.named or tuple(unnamed(self.flow.dim))

    @cached_property
    def splits(self) -> Splits:
        """The points that the run trained on and was judged by, on the flow's device.

        Those of a known law at one condition are drawn anew, as many of that one.

        Raises:
            UserError: the table is gone, or has other columns or rows than the run learned.
        """
        if self.context is not None and self.density is not None:
            return split_data(self.config, self.density, self.flow.device)
        config, path = self.config, getattr(self.config.data, "path", None)
        if path is not None and not Path(path).exists():
            kept = RunFolder(self.folder).points
            if not (kept.name == Path(path).name and kept.is_file()):  # the folder has not moved
                raise UserError(
                    f"{self.folder}: its table is no more at {path}; put it back, as its rows are "
                    "not kept in the run"
                )
            raw = config.model_dump()
            config = validate({**raw, "data": {**raw["data"], "path": str(kept)}})
        splits = build_splits(config, self.flow.device)
        if self.named and splits.train.columns != self.named:
            raise UserError(
                f"{self.folder}: its table has changed since: the run learned "
                f"{listed(self.named)}, there are {listed(splits.train.columns)}"
            )
        if self.table is not None and splits.table != self.table:
            raise UserError(
                f"{self.folder}: its table has changed since: the rows would be dealt anew, and "
                "those that it learned be among its test points; flowrun evaluate --points FILE "
                "takes other rows"
            )
        return splits if self.context is None else splits.given(self.context)

    @cached_property
    def law(self) -> Density | Conditional | None:
        """The density of the run's data, p(x) or p(x | c), where it is known."""
        return build_density(self.config)

    @cached_property
    def density(self) -> Density | None:
        """The density of the flow's points, where it is known; at one condition if it has some."""
        if isinstance(self.law, Conditional):
            return None if self.context is None else self.law.at(self.context)
        return self.law

    def given(self, context: Tensor) -> "SavedRun":
        """Return this run at one condition, (c,), weights shared: its flow is p(x) of that one.

        Raises:
            ValueError: the flow has no condition, or one of another shape.
        """
        own = context.to(self.flow.device, self.flow.dtype)
        return replace(self, flow=self.flow.given(own), context=context)

    @property
    def name(self) -> str:
        """The run's model and data in words, with the condition that its flow is given."""
        told = f"{self.config.model.name} on {self.config.data.title}"
        if self.members:
            told = f"mixture of {len(self.members)} {told}"
        if self.condition is None or self.context is None:
            return told
        return f"{told}, {self.condition.label(self.context)}"

    @property
    def seeds(self) -> str:
        """The run's seed in words; of replicas those of the first and the last."""
        first = self.config.seed
        if not self.members:
            return f"seed {first}"
        return f"seeds {first} to {self.members[-1].config.seed}"

    def as_written(self) -> "SavedRun":
        """Return this run with the rows of its table as they were written, not spread by noise."""
        if not self.grid:
            return self
        raw = self.config.model_dump()
        config = validate({**raw, "data": {**raw["data"], "dequantize": False}})
        return replace(self, config=config)

    def with_solver(self, settings: dict[str, Any]) -> "SavedRun":
        """Return this run, weights shared, evaluated by the solver that these settings name.

        Raises:
            ConfigError: a setting is refused.
        """
        if self.members:
            return _mixed(self.folder, tuple(each.with_solver(settings) for each in self.members))
        assert isinstance(self.flow, ContinuousFlow)
        raw = self.config.model_dump()
        config = validate({**raw, "evaluation": {**raw["evaluation"], "solver": settings}})
        flow = self.flow.with_solver(config.evaluation.solver)
        return replace(self, config=config, flow=flow)


def load(
    run_folder: str | Path,
    checkpoint: str = "best",
    *,
    replica: int | None = None,
    trust_code: bool = False,
) -> Flow:
    """Return the flow of a run on the CPU, in evaluation mode, with the weights it is judged by.

    That of p(x | c) has a `condition` whose `encode` turns values by name into its context. That
    of a folder of replicas is their mixture, sum_r q_r / R.

    Args:
        run_folder: the folder of a run, finished or not, or a .safetensors file of an export.
        checkpoint: "best" (on the validation points) or "last"; an export has one set of weights.
        replica: of a folder of replicas, the number of one of them, from 0.
        trust_code: allow the code that the run names, where it used a piece of its user's own.

    Raises:
        CheckpointError: the folder holds no such checkpoint, or it cannot be read.
        UserError: the run names code, and it is not trusted.

    >>> flow = load(run_folder)
    >>> x = flow.sample(5)
    >>> x.shape, flow.log_prob(x).shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    return open_run(run_folder, checkpoint, replica=replica, trust_code=trust_code).flow


def open_run(
    run_folder: str | Path,
    checkpoint: str = "best",
    *,
    replica: int | None = None,
    device: str = "cpu",
    trust_code: bool | Collection[str] = False,
) -> SavedRun:
    """Open the folder of a run, finished or not.

    Args:
        run_folder: the folder, or a .safetensors file of an export.
        checkpoint: "best" (on the validation points) or "last".
        replica: of a folder of replicas, the number of one of them; None is their mixture.
        device: of the flow: auto, cpu, mps, cuda or cuda:<index>.
        trust_code: allow the code that the run names, where it used a piece of its user's own; or
            which of it.

    Raises:
        CheckpointError: the folder holds no such checkpoint, or it cannot be read.
        ConfigError: the device is not on this machine.
        UserError: the run names code, and it is not trusted.

    >>> run = open_run(run_folder, "last")
    >>> run.config.model.name, run.step, run.flow.training
    ('realnvp', 6, False)
    """
    folder = Path(run_folder)
    if replica is not None:
        folder = existing_replica(folder, replica)
    if folder.suffix == ".safetensors" and not folder.is_dir():
        from flowtrain.runs.weights import read_weights

        file, state = folder, read_weights(folder)
    else:
        if members := RunFolder(folder).replicas:
            options: dict[str, Any] = {"device": device, "trust_code": trust_code}
            each = (open_run(member.path, checkpoint, **options) for member in members)
            return _mixed(folder, tuple(each))
        file = existing_checkpoint(folder, checkpoint)
        state = checkpoints.read(file)
    return _opened(folder, file, state, device=device, trust_code=trust_code)


def _opened(
    folder: Path,
    file: Path,
    state: dict[str, Any],
    *,
    device: str,
    trust_code: bool | Collection[str],
) -> SavedRun:
    """Return the run that a state is of.

    Args:
        folder: of the run.
        file: that the state is from.
        state: of a checkpoint or an export.
        device, trust_code: as `open_run` has them.
    """
    try:
        config = validate(state["config"])
    except UserError as error:
        raise CheckpointError(f"{file}: its config is refused: {one_line(str(error))}") from None
    if isinstance(trust_code, bool):
        trusted = {*config.own_code.values()} if trust_code else set()
        advice = "say --trust-code (flowrun) or trust_code=True (Python)"
    else:
        trusted, advice = {*trust_code}, "name it for this run, too"
    if not trusted >= {*config.own_code.values()}:
        named = ", ".join(f"{key}={target}" for key, target in config.own_code.items())
        raise UserError(
            f"{folder}: this run uses code of its user's own, {named}: if you trust that code, "
            f"{advice}"
        )
    blank = blank_whitening(config, state["dim"])  # it is among the loaded buffers
    try:
        condition = ContextEncoder.restore(state["condition"]) if state.get("condition") else None
    except ValueError as error:
        raise CheckpointError(f"{file}: its condition is damaged: {error}") from None
    context_dim = 0 if condition is None else condition.dim
    flow = build_flow(config, blank, seed=0, context_dim=context_dim)
    try:
        checkpoints.load_eval_weights(flow, state)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    flow = flow.eval().to(pick_device(device, config.points_dtype))
    flow.condition = condition
    columns, grid = (
        tuple(each) if len(each := state.get(key, ())) == flow.dim else ()
        for key in ("columns", "grid")
    )
    step = state["progress"]["step"]
    return SavedRun(folder, config, flow, step, columns, state.get("table"), grid, condition)


def _mixed(folder: Path, members: tuple[SavedRun, ...]) -> SavedRun:
    """Return replicas as one run: its flow is their mixture, its points are the first one's."""
    first = members[0]
    flow = mixture([member.flow for member in members]).eval()
    step = max(member.step for member in members)
    return SavedRun(
        folder, first.config, flow, step, first.named, first.table, first.grid, members=members
    )
