"""Functions applied to rows, a batch or a block of them at a time, or batches side by side."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from flowtrain.progress import done, part

BLOCK = 2**18  # numbers held at once while rows are worked through: 2 MB in float64, a core's cache
CORES = torch.get_num_threads()  # that this process may use: OMP_NUM_THREADS says it, or the system
MOST = 8  # batches side by side: Python hands out the work of more too slowly

_side_by_side: ContextVar[int] = ContextVar("side_by_side", default=1)


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """Apply a function (n, 2) -> (n,) that holds `width` numbers a row, a few rows at a time.

    >>> by_rows(lambda rows: rows.sum(1), torch.ones(5, 2), width=2)
    tensor([2., 2., 2., 2., 2.])
    """
    return torch.cat([function(rows) for rows in torch.split(x, max(1, BLOCK // width))])


@contextmanager
def side_by_side(batches: int) -> Iterator[None]:
    """Let `in_batches` take so many batches at once inside, each on a thread of its own.

    The threads of one operation, torch's own, gain less and wait for each other on a busy machine.
    These do not, and a batch has the same bits however many are taken at once.

    >>> with side_by_side(2):
    ...     in_batches(lambda rows: rows.sum(1), torch.ones(5, 2), batch_size=2)
    tensor([2., 2., 2., 2., 2.])
    """
    before = _side_by_side.set(batches)
    try:
        yield
    finally:
        _side_by_side.reset(before)


def go_side_by_side(batches: int) -> None:
    """Let `in_batches` take so many batches at once from here on, as `side_by_side` does inside.

    >>> with side_by_side(1):
    ...     go_side_by_side(2)
    """
    _side_by_side.set(batches)


@torch.no_grad()
def in_batches(
    function: Callable[..., Tensor], x: Tensor, batch_size: int, beside: Tensor | None = None
) -> Tensor:
    """Apply a function to x, `batch_size` rows at a time; each batch is a part of the work.

    Args:
        function: of some rows of x and, if there are any, those beside.
        x: (n, ...).
        batch_size: rows at a time.
        beside: other rows of the same points, their conditions say, (n, ...).

    >>> in_batches(lambda rows: rows.sum(1), torch.ones(5, 2), batch_size=2)
    tensor([2., 2., 2., 2., 2.])
    """
    given = [x] if beside is None else [x, beside]
    batches = list(zip(*(each.split(batch_size) for each in given), strict=True))
    threads = min(len(batches), _side_by_side.get())
    if threads > 1:
        return torch.cat(_at_once(function, batches, threads))
    results, begun = [], 0
    for batch in batches:
        with part(begun / len(x), (begun + len(batch[0])) / len(x)):
            results.append(function(*batch))
        begun += len(batch[0])
    return torch.cat(results)


def _at_once(
    function: Callable[..., Tensor], batches: Sequence[tuple[Tensor, ...]], threads: int
) -> list[Tensor]:
    """Return the results of all batches in their order; the first that fails ends the others."""

    @torch.no_grad()  # each thread begins with gradients
    def work(batch: tuple[Tensor, ...]) -> Tensor:
        return function(*batch)

    results: list[Tensor] = []
    of_one_operation = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for result in pool.map(work, batches):
                results.append(result)
                done(len(results) / len(batches))
    finally:
        torch.set_num_threads(of_one_operation)
    return results
