"""The loops of tutorials: RealNVP as pairs of networks, and a neural ODE by torchdiffeq alone."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from benchmarks.learners import COUPLINGS, HIDDEN, STEPS, WIDTH, Peer

LOG_2PI = 1.8378770664093453


def network(*sizes: int, activation: type[nn.Module]) -> nn.Sequential:
    """Return linear layers of these widths, an activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def log_normal(z: Tensor) -> Tensor:
    """Return the standard normal law's log-density, (n, d) -> (n,)."""
    return -0.5 * (z.square() + LOG_2PI).sum(-1)


class MaskedCouplings(nn.Module):
    """Masked affine couplings, a network for the log-scale and one for the shift of each."""

    masks: Tensor

    def __init__(self) -> None:
        super().__init__()
        sizes = (2, HIDDEN, HIDDEN, 2)
        self.scales = nn.ModuleList(
            network(*sizes, activation=nn.LeakyReLU) for _ in range(COUPLINGS)
        )
        self.shifts = nn.ModuleList(
            network(*sizes, activation=nn.LeakyReLU) for _ in range(COUPLINGS)
        )
        self.register_buffer("masks", torch.tensor([[0.0, 1.0], [1.0, 0.0]] * (COUPLINGS // 2)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, (n, 2) -> (n,)."""
        log_det = x.new_zeros(len(x))
        for mask, scale, shift in zip(self.masks, self.scales, self.shifts, strict=True):
            seen = x * mask
            s = torch.tanh(scale(seen)) * (1 - mask)
            x = seen + (1 - mask) * (x * torch.exp(s) + shift(seen))
            log_det = log_det + s.sum(-1)
        return log_normal(x) + log_det


class NeuralODE(nn.Module):
    """A network of (z, t), solved with fixed steps, its trace by a second backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network(3, WIDTH, WIDTH, WIDTH, 2, activation=nn.SiLU)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the velocity, (n, 2), and the divergence, (n,)."""
        with torch.enable_grad():
            z = state[0]
            if not z.requires_grad:
                z = z.detach().requires_grad_()
            velocity: Tensor = self.network(torch.cat([z, t.expand(len(z), 1)], -1))
            trace: Any = sum(
                torch.autograd.grad(velocity[:, i].sum(), z, create_graph=True)[0][:, i]
                for i in range(2)
            )
        return velocity, trace

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, (n, 2) -> (n,)."""
        times = torch.tensor([1.0, 0.0])
        z, log_det = odeint(
            self, (x, x.new_zeros(len(x))), times, method="midpoint",
            options={"step_size": 1 / STEPS},
        )  # fmt: skip
        found: Tensor = log_normal(z[-1]) + log_det[-1]
        return found


def realnvp(points: Tensor) -> Peer:
    """Return couplings in training, at Adam's usual rate."""
    flow = MaskedCouplings()
    return Peer(flow, lambda x: -flow.log_prob(x).mean(), flow.log_prob, 1e-3, points)


def neural_ode(points: Tensor) -> Peer:
    """Return a neural ODE in training, at Adam's usual rate."""
    flow = NeuralODE()
    return Peer(flow, lambda x: -flow.log_prob(x).mean(), flow.log_prob, 1e-3, points)
