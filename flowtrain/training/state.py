"""What training changes, and a checkpoint holds: weights, optimizer, generator, progress."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

import torch
from torch.optim.swa_utils import AveragedModel

from flowtrain.errors import CheckpointError
from flowtrain.evaluation.tags import is_evaluation
from flowtrain.flows.flow import Flow
from flowtrain.runs.checkpoint import load_weights
from flowtrain.untrusted import is_number

ERRED = ("nll", "elbo")  # an evaluation has these with their standard errors


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0  # since the first step, evaluations and pictures included
    evaluation_seconds: float = 0.0  # of them
    drawing_seconds: float = 0.0  # of them
    last_eval_step: int = -1
    best: float = math.inf  # of the objective's criterion, on validation points
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    failures: int = 0  # failed steps in a row
    skipped: int = 0  # failed steps in all
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> "Progress":
        """Return the progress that a checkpoint holds.

        Raises:
            CheckpointError: a part is unknown or of another type.
        """
        fresh = asdict(cls())
        whole, counts = fresh | saved, ("step", "best_step", "stale", "failures", "skipped")
        metrics, numbers = whole["metrics"], [v for key, v in whole.items() if key != "metrics"]
        if not (
            whole.keys() == fresh.keys()
            and isinstance(metrics, dict)
            and all(isinstance(tag, str) and is_number(v) for tag, v in metrics.items())
            and all(is_number(number) for number in numbers)
            and all(type(whole[key]) is int and whole[key] >= 0 for key in counts)
            and all(math.isfinite(v) for key, v in whole.items() if key.endswith("seconds"))
            and (whole["last_eval_step"] < 0 or is_evaluation(metrics.keys()))
            and all(f"{name}_error/val" in metrics for name in ERRED if f"{name}/val" in metrics)
        ):
            raise CheckpointError("its progress is damaged: a part is unknown or of another type")
        return cls(**whole)


class Optimizer(Protocol):
    """Moves weights by their gradient.

    Attributes:
        lr: the learning rate, which the schedule sets before each step.
    """

    lr: float

    def step(self) -> None:
        """Move the weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept between steps: plain containers of tensors and numbers."""

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what was kept.

        Raises:
            ValueError: it is not of these weights; says why.
        """


@dataclass
class TrainState:
    """Everything that training changes: saved and loaded, a run goes on as if never stopped."""

    flow: Flow
    average: AveragedModel | None  # of the weights, where the config asks for one
    optimizer: Optimizer
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
        """Take over a saved state, whose config has been reconciled with the run's.

        Raises:
            CheckpointError: a part of it does not fit.
        """
        load_weights(self.flow, state["model"])
        if self.average is not None:
            load_weights(self.average, state["ema"] or {})
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"the optimizer's state does not fit the model: {error}"
            ) from None
        self.progress = Progress.restored(state["progress"])
        try:
            self.generator.set_state(state["generator"])
        except RuntimeError:  # it is of another kind of device: draw other batches from here on
            self.generator.manual_seed(self.generator.initial_seed() + self.progress.step)
