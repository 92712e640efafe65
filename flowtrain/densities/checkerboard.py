"""A density with edges: a checkerboard."""

import math
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.densities.numerics import gauss_legendre

# In squares, for each square of a row: no sample lies nearer to an edge. A float32, turned or not,
# could have it on the other side, where the density is 0.
MARGIN = 2.0**-20


class Checkerboard(Density):
    """Uniform on every other square of a board centred at 0, the lower left one included.

    FFJORD (arXiv 1810.01367) has 4 x 4 squares of side 2, eight of them filled.

    Args:
        squares: per side of the board, at least 2.
        side: of a square.

    Raises:
        ValueError: fewer than 2 squares, or side is not positive.

    >>> board = Checkerboard(squares=4, side=2.0)
    >>> board.log_prob(torch.tensor([[-3.0, -3.0], [-1.0, -3.0]]))  # a filled square, an empty one
    tensor([-3.4657,    -inf])
    >>> round(board.entropy, 4)  # log 32, the filled area
    3.4657
    """

    def __init__(self, *, squares: int, side: float) -> None:
        if squares < 2:
            raise ValueError(f"squares must be >= 2, got {squares}")
        self.squares = squares
        self.side = side
        board = torch.cartesian_prod(torch.arange(squares), torch.arange(squares))
        self._filled = board[board.sum(1) % 2 == 0]
        self._origin = -squares * side / 2
        # a margin of one square, so that a quadrature sees what a model leaks over the edge
        corner = torch.full((2,), (squares / 2 + 1) * side, dtype=torch.float64)
        super().__init__(window=(-corner, corner), resolution=side)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        square = self._filled[torch.randint(len(self._filled), (n,), generator=generator)]
        inside = torch.rand(n, 2, dtype=torch.float64, generator=generator)
        margin = MARGIN * self.squares
        inside = inside.clamp(margin, 1 - margin)
        return self._origin + self.side * (square + inside)

    def log_prob(self, x: Tensor) -> Tensor:
        square = ((x - self._origin) / self.side).floor()
        on_board = ((square >= 0) & (square < self.squares)).all(1)
        filled = on_board & (square.sum(1) % 2 == 0)
        return torch.where(filled, x.new_tensor(-self.entropy), -math.inf)

    @cached_property
    def entropy(self) -> float:
        """The log of the filled area."""
        return math.log(len(self._filled) * self.side**2)

    def _axis_rule(self, axis: int, points: int) -> tuple[Tensor, Tensor]:
        """Panels that end where squares do, so that the jumps cost no accuracy."""
        edges = self._origin + self.side * torch.arange(-1, self.squares + 2, dtype=torch.float64)
        return gauss_legendre(edges, math.ceil(points / (self.squares + 2)))
