"""The checkerboard: which squares are filled, and what is refused."""

import math
from typing import Any

import pytest
import torch

from flowtrain.densities.checkerboard import Checkerboard


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
