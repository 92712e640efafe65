"""Fixtures that tests of several folders share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flowtrain.flows import FLOWS, ContinuousFlow, Standardize
from flowtrain.flows.ode import Solver

DOPRI5 = Solver("dopri5", rtol=1e-5, atol=1e-5, max_steps=200)


@pytest.fixture
def make_ffjord() -> Callable[..., ContinuousFlow]:
    """Return a builder of small FFJORDs with random weights, in float64 unless told otherwise."""

    def make(
        dim: int = 2, *, seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any
    ) -> ContinuousFlow:
        settings: dict[str, Any] = {
            "field": "concatsquash", "width": 16, "depth": 2, "activation": "tanh",
            "divergence": "auto", "probes": None, "noise": None,
            "solver": DOPRI5, "evaluation_solver": DOPRI5,
        }  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        standardize = Standardize(0.5 + torch.arange(dim), 1.5 + torch.arange(dim))
        flow = FLOWS["ffjord"](standardize, generator=generator, **(settings | changes))
        assert isinstance(flow, ContinuousFlow)
        randomize(flow, generator)
        return flow.to(dtype)

    return make


@pytest.fixture(name="randomize")
def fixture_randomize() -> Callable[[nn.Module, torch.Generator], None]:
    return randomize


@torch.no_grad()
def randomize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight anew: last layers start at zero, and a flow at the identity."""
    for parameter in module.parameters():
        spread = 1.5 * parameter.shape[-1] ** -0.5
        parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
