"""What a run folder holds, opened again: no config given, no code of the folder's own run."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from flowtrain import checkpoint as checkpoints
from flowtrain.build import build_density, build_flow, build_pools, build_solver, pick_device
from flowtrain.config import Config, Split, Table, validate
from flowtrain.data import Density
from flowtrain.data.pools import Pool
from flowtrain.data.tables import read_table
from flowtrain.errors import CheckpointError, UserError
from flowtrain.flows import ContinuousFlow, Flow


@dataclass(frozen=True)
class SavedRun:
    """A run from its folder: its config, and its flow in evaluation mode.

    Attributes:
        folder: of the run.
        config: the run's own.
        flow: with the weights it is judged by, averaged ones where the run kept an average.
        step: at which the weights were saved.
    """

    folder: Path
    config: Config
    flow: Flow
    step: int

    @property
    def device(self) -> torch.device:
        """Where the flow is."""
        return self.flow.like.device

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the flow's coordinates: its table's, as long as that is there, or x0, ..."""
        data = self.config.data
        found: tuple[str, ...] = ()
        with suppress(UserError):
            if isinstance(data, Table):
                found = read_table(**data.arguments()).columns
        if len(found) == self.flow.dim:
            return found
        return tuple(f"x{position}" for position in range(self.flow.dim))

    def pools(self) -> dict[str, Pool]:
        """Return the points that the run trained on and was judged by, beside the flow."""
        return build_pools(self.config, self.device)

    def law(self) -> Density | None:
        """Return the law of the run's data, where it is known."""
        return None if isinstance(self.config.pools, Split) else build_density(self.config)

    def with_solver(self, settings: dict[str, Any]) -> "SavedRun":
        """Return this run, weights shared, evaluated by the solver that these settings name.

        Raises:
            ConfigError: a setting is refused.
        """
        assert isinstance(self.flow, ContinuousFlow)
        raw = self.config.model_dump()
        config = validate({**raw, "evaluation": {**raw["evaluation"], "solver": settings}})
        flow = self.flow.with_solver(build_solver(config.evaluation.solver))
        return replace(self, config=config, flow=flow)


def load(run_folder: str | Path, checkpoint: str = "best") -> Flow:
    """Return the flow of a run on the CPU, in evaluation mode, with the weights it is judged by.

    Args:
        run_folder: the folder of a run, finished or not.
        checkpoint: "best" (by validation NLL) or "last".

    Raises:
        CheckpointError: the folder holds no such checkpoint, or it cannot be read.
    """
    return open_run(run_folder, checkpoint).flow


def open_run(run_folder: str | Path, checkpoint: str = "best", *, device: str = "cpu") -> SavedRun:
    """Open the folder of a run, finished or not.

    Args:
        run_folder: the folder.
        checkpoint: "best" (by validation NLL) or "last".
        device: of the flow: auto, cpu, mps, cuda or cuda:<index>.

    Raises:
        CheckpointError: the folder holds no such checkpoint, or it cannot be read.
        ConfigError: the device is not on this machine.
    """
    folder = Path(run_folder)
    path = folder / "checkpoints" / f"{checkpoint}.pt"
    if not path.is_file():
        raise CheckpointError(_absent(folder, path))
    state = checkpoints.read(path)
    config = validate(state["config"])
    blank = torch.ones(state["dim"])  # the standardisation is among the loaded buffers
    flow = build_flow(config, blank, blank, seed=0)
    checkpoints.load_measured(flow, state)
    flow = flow.eval().to(pick_device(device, config.dtype))
    return SavedRun(folder, config, flow, state["progress"]["step"])


def _absent(folder: Path, path: Path) -> str:
    """Say why a folder has no checkpoint, and where there is one."""
    if not folder.is_dir():
        return f"{folder}: {'a file, not a run folder' if folder.exists() else 'no such folder'}"
    if there := sorted(each.stem for each in path.parent.glob("*.pt")):
        return f"there is no checkpoint {path}; the run has {' and '.join(there)}"
    if (folder / "result.json").is_file():
        return f"there is no checkpoint {path}: the run has saved none yet"
    below = sorted(each.parents[1] for each in folder.glob(f"*/checkpoints/{path.name}"))
    hint = f"; one below it is: {below[0]}" if below else ""
    return f"there is no checkpoint {path}: {folder} is no run folder{hint}"
