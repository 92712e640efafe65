"""Explicit Runge-Kutta methods with equal steps, which never wait for a GPU.

torchdiffeq has the same methods, and reads the time back after every step. That costs a GPU more
than the step, and no CUDA graph can hold it.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowtrain.config.methods import METHODS
from flowtrain.progress import done


def integrate(
    function: Callable[[Tensor, Tensor], Tensor],
    state: Tensor,
    start: float,
    end: float,
    *,
    method: str,
    step_size: float,
) -> Tensor:
    """Integrate d(state)/dt = function(t, state) over an interval of time, and tell how far it is.

    Args:
        function: the right-hand side, (), (n, c) -> (n, c).
        state: at the start, (n, c).
        start: of the interval.
        end: of it, before or after the start.
        method: a name in `METHODS`.
        step_size: at most; the interval is divided into equal steps.

    Returns:
        The state at the end, (n, c).

    >>> e = integrate(lambda t, y: y, torch.ones(1, 1), 0.0, 1.0, method="rk4", step_size=0.1)
    >>> round(e.item(), 5)
    2.71828
    """
    stages, weights = METHODS[method]
    steps = count_steps(end - start, step_size)
    step = (end - start) / steps
    grid = torch.linspace(start, end, steps + 1, dtype=state.dtype, device=state.device)
    times = [grid[1:] if at == 1 else grid[:-1] + at * step for at, _ in stages]
    for number in range(steps):
        slopes: list[Tensor] = []
        for (_, before), each in zip(stages, times, strict=True):
            slopes.append(function(each[number], moved(state, before, slopes, step)))
        state = moved(state, weights, slopes, step)
        done((number + 1) / steps)
    return state


def count_steps(length: float, at_most: float) -> int:
    """Return into how many equal steps of a size at most a length of time is divided.

    >>> count_steps(-1.0, 0.3), count_steps(1e-9, 0.3)
    (4, 1)
    """
    return max(1, math.ceil(abs(length) / at_most - 1e-6))  # 1 / 0.05 may be 20.0000003


def moved(state: Tensor, weights: Sequence[float], slopes: Sequence[Tensor], step: float) -> Tensor:
    """Return a state moved along slopes, each by its weight in a step.

    >>> moved(torch.zeros(1), (0.5, 0.5), [torch.ones(1), 3 * torch.ones(1)], step=0.1)
    tensor([0.2000])
    """
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            state = torch.add(state, slope, alpha=weight * step)
    return state
