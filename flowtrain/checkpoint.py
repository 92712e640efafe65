"""Checkpoints: written whole or not at all, read without running code, kept as plain containers."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZipFile

import torch
from torch.optim.swa_utils import AveragedModel

from flowtrain.errors import CheckpointError
from flowtrain.flows import Flow


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is written whole, and on the disk.

    A failure keeps the file that was there, and leaves nothing else.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically. A failure keeps the old one.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        kept = "; the one before it is kept" if path.exists() else ""
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}{kept}") from error


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it can run code.

    Raises:
        CheckpointError: the file is missing, truncated or no checkpoint of flowtrain's.
    """
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    except Exception:  # torch raises a dozen types on foreign bytes
        state = None
    if not isinstance(state, dict) or not {"config", "model", "progress"} <= state.keys():
        raise CheckpointError(f"{path} is truncated, damaged or no checkpoint of flowtrain's")
    return state


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    measured: int = -1  # step of the last evaluation
    best: float = math.inf  # validation NLL
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    failures: int = 0  # failed steps in a row
    skipped: int = 0  # failed steps in all
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation


@dataclass
class TrainState:
    """Everything that training changes: saved and loaded, a run goes on as if never stopped."""

    flow: Flow
    average: AveragedModel | None  # of the weights, where the config asks for one
    optimizer: torch.optim.Optimizer
    generator: torch.Generator  # of batches and probes, the only randomness of training
    progress: Progress

    @property
    def measured(self) -> Flow:
        """The flow that is evaluated: the averaged one where there is an average."""
        return self.flow if self.average is None else cast(Flow, self.average.module)

    def state_dict(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return plain containers of tensors and numbers, the config among them."""
        return {
            "config": config,
            "dim": self.flow.dim,
            "model": self.flow.state_dict(),
            "ema": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "progress": asdict(self.progress),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.flow.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        try:
            self.generator.set_state(state["generator"])
        except RuntimeError:  # it is of another kind of device: draw other batches from here on
            self.generator.manual_seed(self.generator.initial_seed() + self.progress.step)


def load_measured(flow: Flow, state: dict[str, Any]) -> None:
    """Load the weights that evaluation uses, averaged ones where the run kept an average."""
    if state["ema"] is None:
        flow.load_state_dict(state["model"])
    else:
        prefix = "module."
        weights = {k.removeprefix(prefix): v for k, v in state["ema"].items() if prefix in k}
        flow.load_state_dict(weights)
