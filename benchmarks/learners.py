"""What `make bench` compares: flows in training, each as a step and a density.

Points are whitened for all alike, by the same mean and deviation; a peer's log-density is told in
data coordinates. Every peer has the training loop of its own documentation: its loss, Adam, and
here the clip, the batch and the schedule of this project's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import hydra
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import flowtrain.cli.hydra_hooks  # noqa: F401 - the resolvers of conf/
from flowtrain.config import CONF
from flowtrain.config.schema import Config, validate
from flowtrain.config.solver import Adaptive
from flowtrain.densities.density import Density
from flowtrain.evaluation.quadrature import integrate
from flowtrain.flows.flow import Standardize
from flowtrain.runs.folder import RunFolder
from flowtrain.training.run import build_run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker

BATCH, CLIP, POINTS = 512, 1.0, 200_000
COUPLINGS, HIDDEN = 24, 48  # of RealNVP
SPLINES, BINS, BOUND, WIDTH = 8, 16, 4.0, 64  # of splines
STEPS = 10  # of a CNF with fixed steps, each of two evaluations
SOLVER = Adaptive(name="dopri5", rtol=1e-5, atol=1e-5, norm="max")


class Learner(Protocol):
    """A flow in training."""

    def step(self, done: float) -> None:
        """Take a training step after a fraction `done` of the budget."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density at x, (n, 2) -> (n,), in nats."""


Make = Callable[[], Learner]
Maker = Callable[..., Make]  # of overrides


def configured(overrides: list[str]) -> Config:
    """Return the config of a run that is trained here, step by step, for a budget of one second."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose(
            "config",
            overrides=[
                f"trainer.batch_size={BATCH}", *overrides,
                "trainer.max_steps=null", "trainer.max_seconds=1.0",
                "trainer.log_every=1000000000", "trainer.device=cpu", "logger=none",
                f"splits.train={POINTS}", "splits.val=2", "splits.test=2",
            ],
        )  # fmt: skip
    return validate(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]


class Ours:
    """A run of this project, by its own training step.

    Args:
        overrides: of the config, as at the command line.
        folder: for its run folder.
    """

    def __init__(self, overrides: list[str], folder: Path) -> None:
        self.run = build_run(configured(overrides), RunFolder(folder))
        folder.mkdir(parents=True, exist_ok=True)
        self.tracker = Tracker(
            self.run.folder, step=-1, evaluated=-1, logger=self.run.config.logger
        )

    def step(self, done: float) -> None:
        self.run.state.progress.seconds = done  # of a budget of one second
        train_step(self.run, self.tracker)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.run.state.eval_flow.log_prob(x)


def maker_in(folder: Path) -> Maker:
    """Return what makes runs of this project, each in a folder of its own in this one."""
    return lambda *overrides: lambda: Ours([*overrides], Path(mkdtemp(dir=folder)) / "run")


@dataclass
class Peer:
    """A module of another library, its loss on whitened points, and their log-density."""

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    white_log_prob: Callable[[Tensor], Tensor]
    lr: float
    points: Tensor

    def __post_init__(self) -> None:
        mean, std = self.points.mean(0), self.points.std(0)
        self.standardize = Standardize(mean, std)
        self.white = self.standardize.inverse(self.points)[0]
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=self.lr)

    def step(self, done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * done))
        batch = self.white[torch.randint(len(self.white), (BATCH,))]
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), CLIP)
        self.optimizer.step()

    def log_prob(self, x: Tensor) -> Tensor:
        white, log_det = self.standardize.inverse(x)
        return self.white_log_prob(white) + log_det


class WithTangents(nn.Module):
    """A network of (z, t) as a field of ours: autograd gives the tangents, row by row of J."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        time = t[..., None].expand(len(z), 1)
        if not len(tangents):
            return self.network(torch.cat([z, time], -1)), tangents
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            velocity = self.network(torch.cat([z, time], -1))
            rows = [
                torch.autograd.grad(column.sum(), z, retain_graph=True)[0]
                for column in velocity.unbind(-1)
            ]
        return velocity.detach(), torch.einsum("dnj,knj->knd", torch.stack(rows), tangents)


def kl(density: Density, learner: Learner, grid: int = 256) -> float:
    """Return KL(data | model) in nats, by the quadrature of every run's report."""
    found, _, _ = integrate(
        lambda x: learner.log_prob(x.float()), density, points=grid, batch_size=4096
    )
    return found
