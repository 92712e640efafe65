"""Batches side by side: the same bits, errors and progress as one after the other."""

import threading
import time
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from flowtrain.batching import in_batches, side_by_side
from flowtrain.config.solver import Adaptive
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.ode import SolverError
from flowtrain.progress import doing, listening


def test_batches_keep_their_order_and_use_several_threads() -> None:
    seen: set[int] = set()

    def slower_first(rows: Tensor) -> Tensor:
        seen.add(threading.get_ident())
        time.sleep(0.05 if rows[0] < 2 else 0.0)
        return 2 * rows

    with side_by_side(3):
        assert in_batches(slower_first, torch.arange(7), 2).tolist() == list(range(0, 14, 2))
    assert len(seen) > 1
    assert threading.get_ident() not in seen
    seen.clear()
    in_batches(slower_first, torch.arange(7), 2)
    assert seen == {threading.get_ident()}


def test_rows_beside_stay_beside_and_one_batch_takes_no_thread() -> None:
    x, beside = torch.arange(5.0), 10 * torch.arange(5.0)
    with side_by_side(2):
        assert torch.equal(in_batches(torch.add, x, 2, beside), x + beside)
        threads = in_batches(lambda rows: torch.tensor([threading.get_ident()]), x, 5)
    assert threads.item() == threading.get_ident()


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_likelihood_has_the_same_bits_side_by_side(
    make_ffjord: Callable[..., ContinuousFlow], dtype: Literal["float64"] | None
) -> None:
    flow = make_ffjord(dtype=torch.float32).with_solver(
        Adaptive(name="dopri5", rtol=1e-4, atol=1e-4, dtype=dtype)
    )
    x = flow.sample(400, torch.Generator().manual_seed(0))
    alone = in_batches(flow.log_prob, x, 50)
    before = torch.get_num_threads()
    with side_by_side(4):
        assert torch.equal(in_batches(flow.log_prob, x, 50), alone)
    assert torch.get_num_threads() == before


def test_no_thread_records_a_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)
    for batches in (1, 2):
        with side_by_side(batches):
            found = in_batches(lambda rows: weight * rows, torch.arange(4.0), 1)
        assert not found.requires_grad


def test_the_first_failure_is_told_as_without_threads(
    make_ffjord: Callable[..., ContinuousFlow],
) -> None:
    flow = make_ffjord().with_solver(Adaptive(name="dopri5", rtol=1e-9, atol=1e-9, max_steps=1))
    x = torch.zeros(40, 2, dtype=torch.float64)
    for batches in (1, 4):
        with side_by_side(batches), pytest.raises(SolverError, match="needs more than max_steps"):
            in_batches(flow.log_prob, x, 5)


def test_progress_is_told_from_the_thread_that_waits() -> None:
    told: list[tuple[str, float]] = []

    def work(rows: Tensor) -> Tensor:
        with doing("nobody hears this"):
            return rows

    with (
        listening(lambda what, fraction, _: told.append((what, fraction))),
        doing("points"),
        side_by_side(2),
    ):
        in_batches(work, torch.arange(4), 1)
    assert told == [("points", each) for each in (0.0, 0.25, 0.5, 0.75, 1.0)]
