"""Functions applied to rows, a batch or a block of them at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowtrain.progress import part

BLOCK = 2**18  # numbers held at once while rows are worked through: 2 MB in float64, a core's cache


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """Apply a function (n, 2) -> (n,) that holds `width` numbers a row, a few rows at a time.

    >>> by_rows(lambda rows: rows.sum(1), torch.ones(5, 2), width=2)
    tensor([2., 2., 2., 2., 2.])
    """
    return torch.cat([function(rows) for rows in torch.split(x, max(1, BLOCK // width))])


@torch.no_grad()
def in_batches(
    function: Callable[..., Tensor], x: Tensor, batch_size: int, beside: Tensor | None = None
) -> Tensor:
    """Apply a function (n, ...) -> (n, ...) to the rows of x, so many at a time, without gradients.

    Each batch is a part of the work that is told as progress.

    Args:
        function: of some rows of x and, if there are any, those beside.
        x: (n, ...).
        batch_size: rows at a time.
        beside: other rows of the same points, their conditions say, (n, ...).

    >>> in_batches(lambda rows: rows.sum(1), torch.ones(5, 2), batch_size=2)
    tensor([2., 2., 2., 2., 2.])
    """
    results, begun = [], 0
    for rows in x.split(batch_size):
        more = () if beside is None else (beside[begun : begun + len(rows)],)
        with part(begun / len(x), (begun + len(rows)) / len(x)):
            results.append(function(rows, *more))
        begun += len(rows)
    return torch.cat(results)
