"""Smooth activations: values are torch's, slopes autograd's."""

from typing import get_args

import pytest
import torch
from torch import nn

from flowtrain.config.model import FFJORD
from flowtrain.flows.smooth import SMOOTH


def test_the_config_offers_every_activation() -> None:
    assert {*get_args(FFJORD.model_fields["activation"].annotation)} == {*SMOOTH}


@pytest.mark.parametrize("name", SMOOTH)
def test_slopes_are_those_of_autograd(name: str) -> None:
    a = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    value, slope = SMOOTH[name](a)
    torch.testing.assert_close(value, getattr(nn.functional, name)(a))
    (expected,) = torch.autograd.grad(value.sum(), a)
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-12)
