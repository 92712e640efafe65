"""The root of a rising function, found for many at once."""

from collections.abc import Callable

import torch
from torch import Tensor


def rising_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor
) -> Tensor:
    """Root of a rising function in [low, high], to half the digits of the dtype.

    A Newton step is taken where it stays in the bracket and is at most half the last move, else a
    bisection, so that it cannot cycle. One more Newton step gives the other half of the digits.

    Args:
        function: x -> (value, derivative), all of the shape of low and high.
        low: lower ends of the brackets.
        high: upper ends.

    >>> low, high = torch.zeros(1, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64)
    >>> round(float(rising_root(lambda x: (x**2 - 2, 2 * x), low, high)), 9)  # √2
    1.414213562
    """
    x = (low + high) / 2
    move = high - low
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    while (move > tolerance).any():
        value, slope = function(x)
        low, high = torch.where(value < 0, x, low), torch.where(value < 0, high, x)
        step = value / slope
        newton = x - step
        good = (newton > low) & (newton < high) & (2 * step.abs() <= move)
        # at a found root rounding may put a tiny step out of the bracket: bisection would leave it
        good |= step.abs() < tolerance
        last, x = x, torch.where(good, newton, (low + high) / 2)
        move = (x - last).abs()
    return x
