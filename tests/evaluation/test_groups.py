"""Groups of points by their condition: every point in one kind, and in one third of each number."""

import numpy as np
import pytest
import torch

from flowtrain.data.condition import ContextEncoder
from flowtrain.data.condition_column import Category, Number
from flowtrain.evaluation.groups import groups


def test_a_point_is_in_one_kind_and_one_third_of_each_number() -> None:
    condition = ContextEncoder(
        (
            Category("kind", ("a", "b")),
            Number("size", mean=1e3, std=7.0, low=0.0, high=2e3),
            Number("age", mean=0.0, std=1e-3, low=-1.0, high=1.0),
        )
    )
    context = condition.draw(500, torch.Generator().manual_seed(0))
    found = groups(condition, context)
    assert len(found) == 2 + 3 + 3
    masks = torch.stack([*found.values()]).int()
    for own in (masks[:2], masks[2:5], masks[5:]):
        assert torch.equal(own.sum(0), torch.ones(500, dtype=own.dtype))
    for third in masks[2:]:
        assert 140 < int(third.sum()) < 195
    assert torch.equal(found["kind=a"], context[:, 0] == 1)


def test_a_label_says_exactly_who_is_in_it() -> None:
    condition = ContextEncoder((Number("age", mean=0.0, std=1.0, low=0.0, high=9.0),))
    ages = np.arange(10.0)
    found = groups(condition, condition.encode({"age": ages}))
    assert [*found] == ["age<3", "3<=age<6", "age>=6"]
    assert ages[found["3<=age<6"]].tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contexts_of_either_precision_are_grouped_alike(dtype: torch.dtype) -> None:
    condition = ContextEncoder((Category("kind", ("a", "b")),))
    context = condition.draw(20, torch.Generator().manual_seed(0))
    found = groups(condition, context.to(dtype))
    assert torch.equal(found["kind=b"], context[:, 1] == 1)
