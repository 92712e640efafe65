"""The checkerboard: which squares are filled, and what is refused."""

import math
from typing import Any

import pytest
import torch

from flowtrain.densities.checkerboard import Checkerboard
from flowtrain.densities.interval import Interval, Rotations


@pytest.mark.parametrize("squares", [2, 3, 4])
def test_every_other_square_is_filled_the_lower_left_one_included(squares: int) -> None:
    board = Checkerboard(squares=squares, side=2.0)
    corner = -squares + 1.0  # the middle of the lower left square
    filled = [(i, j) for i in range(squares) for j in range(squares) if (i + j) % 2 == 0]
    for i in range(-1, squares + 1):
        for j in range(-1, squares + 1):
            x = torch.tensor([[corner + 2 * i, corner + 2 * j]], dtype=torch.float64)
            expected = -math.log(4 * len(filled)) if (i, j) in filled else -math.inf
            assert board.log_prob(x).item() == pytest.approx(expected)


@pytest.mark.parametrize("drawn", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize(("squares", "side"), [(2, 2.0), (4, 2.0), (4, 0.3), (7, 1e-5), (999, 3e4)])
def test_a_point_that_is_drawn_on_an_edge_has_a_density_in_float32(
    squares: int, side: float, drawn: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Checkerboard(squares=squares, side=side)
    turned = Rotations(board, Interval(0.0, 2 * math.pi))
    rand = torch.rand

    def on_an_edge(*size: int, **settings: Any) -> torch.Tensor:
        return rand(*size, **settings) if size[-1] != 2 else torch.full(size, drawn).double()

    monkeypatch.setattr(torch, "rand", on_an_edge)
    x = board.sample(10_000, torch.Generator().manual_seed(0)).float()
    assert board.log_prob(x).isfinite().all()
    assert board.log_prob(x.double()).isfinite().all()
    x, context = (part.float() for part in turned.sample(10_000, torch.Generator().manual_seed(0)))
    assert turned.log_prob(x.double(), context.double()).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"squares": 1}, "squares must be >= 2, got 1"),
        ({"side": math.inf}, "is no finite box"),
        ({"side": -1.0}, "is no finite box"),
    ],
)
def test_bad_parameters_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Checkerboard(**{"squares": 4, "side": 2.0, **changes})
