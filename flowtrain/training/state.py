"""What training changes, and a checkpoint holds: weights, optimizer, generator, progress."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel

from flowtrain.flows.flow import Flow


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0  # since the first step, evaluations and pictures included
    evaluation_seconds: float = 0.0  # of them
    drawing_seconds: float = 0.0  # of them
    last_eval_step: int = -1
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
    def eval_flow(self) -> Flow:
        """The flow that is evaluated: the averaged one where there is an average."""
        return self.flow if self.average is None else cast(Flow, self.average.module)

    def state_dict(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return plain containers of tensors and numbers.

        Args:
            config: as `saved_config` returns it.
        """
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
