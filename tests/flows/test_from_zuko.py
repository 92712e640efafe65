"""What is zuko's own about its flows; the rest is walked with every flow in test_flow.py."""

import pytest
import torch

from flowtrain.flows.flow import Standardize
from flowtrain.flows.from_zuko import zuko

library = pytest.importorskip("zuko")

STANDARDIZE = Standardize(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5]))


def test_the_density_is_the_one_that_zuko_gives() -> None:
    torch.manual_seed(0)
    own = library.flows.MAF(2, transforms=3)
    torch.manual_seed(0)
    ours = zuko(STANDARDIZE, flow="maf", transforms=3, arguments={}, generator=torch.Generator())
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    white, log_det = STANDARDIZE.inverse(x)
    torch.testing.assert_close(ours.log_prob(x), own().log_prob(white) + log_det)


def test_what_zuko_refuses_is_told_in_words() -> None:
    for arguments, words in (
        ({"bin": 3}, "nsf of zuko: .* unexpected keyword argument 'bin'"),
        ({"features": 3}, "nsf of zuko: .* multiple values for .* 'features'"),
        ({"activation": "gelu"}, "no activation 'gelu'; choose from relu, silu, tanh"),
    ):
        with pytest.raises(ValueError, match=words):
            zuko(
                STANDARDIZE, flow="nsf", transforms=1, arguments=arguments,
                generator=torch.Generator(),
            )  # fmt: skip
