"""Fixtures of the tests of continuous flows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowtrain.flows.continuous import ContinuousFlow


class Evaluated:
    """What reaches a flow's field: probes, and whether autograd records."""

    def __init__(self, flow: ContinuousFlow) -> None:
        self.probes: list[Tensor] = []
        self.recording: set[bool] = set()
        flow.cnf.field.register_forward_pre_hook(self.remember)

    def remember(self, module: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        self.probes.append(inputs[2])
        self.recording.add(torch.is_grad_enabled())

    @property
    def count(self) -> int:
        return len(self.probes)


@pytest.fixture(scope="session")
def watch() -> Callable[[ContinuousFlow], Evaluated]:
    """Return a function that starts to record what reaches a flow's field."""
    return Evaluated


@pytest.fixture(scope="session")
def jacobian() -> Callable[[ContinuousFlow, float, Tensor], Tensor]:
    """Return a function to df/dz by autograd, (n, d, d)."""

    def jacobian(flow: ContinuousFlow, t: float, z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        velocity = flow.velocity(t, z)
        rows = [torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v in velocity.unbind(-1)]
        return torch.stack(rows, 1)

    return jacobian
