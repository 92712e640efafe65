"""The points of a run: sampled from a density or split from a table, and what is doubtful."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flowtrain.data.read import Table
from flowtrain.data.splits import (
    Split,
    Splits,
    sample_splits,
    split_rows,
    split_table,
)
from flowtrain.densities.curves import Moons
from flowtrain.densities.density import Density
from flowtrain.errors import UserError


def refusal(action: Callable[[], Any]) -> str:
    """Return what the user is told, one line."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


# --- dealing rows --------------------------------------------------------------------------------


def test_split_rows_deals_every_row_once_by_its_seed() -> None:
    parts = split_rows(100, val=0.1, test=0.25, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 65, "val": 10, "test": 25,
    }  # fmt: skip
    dealt = torch.cat([*parts.values()])
    assert not torch.equal(dealt, torch.arange(100))
    assert torch.equal(dealt.sort().values, torch.arange(100))
    again = split_rows(100, val=0.1, test=0.25, seed=3)
    other = split_rows(100, val=0.1, test=0.25, seed=4)
    assert all(torch.equal(parts[name], again[name]) for name in parts)
    assert not torch.equal(parts["test"], other["test"])


@pytest.mark.parametrize(
    ("rows", "val", "test", "expected"),
    [
        (12, 0.1, 0.2, "leave 1 for val; each split needs 2: raise splits.val to 0.17"),
        (12, 0.2, 0.0, "leave 0 for test; each split needs 2: raise splits.test to 0.17"),
        (10, 0.5, 0.5, "leave 0 for train; each split needs 2: lower splits.val or splits.test"),
        (10, 0.8, 0.8, "leave 0 for train; each split needs 2"),
        (
            1,
            0.1,
            0.1,
            "1 row with val=0.1 and test=0.1 leave 1 for train; each split needs 2: these",
        ),
    ],
)
def test_split_rows_refuses_splits_without_rows(
    rows: int, val: float, test: float, expected: str
) -> None:
    assert expected in refusal(lambda: split_rows(rows, val=val, test=test, seed=0))


# --- the three splits of a run ------------------------------------------------------------------

SEEDS = {"train": 1, "val": 2, "test": 3}
CPU = torch.device("cpu")


def sampled(**changes: Any) -> Splits:
    sizes = {"train": 40, "val": 20, "test": 30}
    settings = {"seeds": SEEDS, "device": CPU, "dtype": torch.float32, **sizes, **changes}
    return sample_splits(Moons(noise=0.1, scale=1.0, shift=[0.0, 0.0]), **settings)


def test_each_split_of_a_density_is_its_own_sample_from_its_own_seed() -> None:
    splits, other = sampled(), sampled(seeds={**SEEDS, "val": 7})
    density = Moons(noise=0.1, scale=1.0, shift=[0.0, 0.0])
    for name, size in (("train", 40), ("val", 20), ("test", 30)):
        x = density.sample(size, torch.Generator().manual_seed(SEEDS[name]))
        assert torch.equal(getattr(splits, name).x, x.float())
        assert torch.equal(getattr(other, name).x, x.float()) == (name != "val")


def test_the_size_of_a_split_changes_no_other() -> None:
    few, many = sampled(train=40), sampled(train=4000)
    assert torch.equal(few.val.x, many.val.x)
    assert torch.equal(few.test.x, many.test.x)


def test_the_points_of_a_density_know_it() -> None:
    split = sampled().test
    assert isinstance(split.density, Density)
    assert (split.columns, split.levels) == ((), None)
    assert torch.equal(split.log_p, split.density.log_prob(split.x.double()))
    assert split.log_p.dtype == torch.float64


def test_a_split_is_made_when_it_is_asked_for_and_once() -> None:
    made: list[str] = []

    def make(name: str) -> Split:
        made.append(name)
        return Split(torch.zeros(2, 2))

    splits = Splits(make)
    assert made == []
    assert splits.test is splits.test
    assert splits.train is splits.train
    assert made == ["test", "train"]


def test_the_splits_of_a_table_hold_its_rows_columns_and_levels() -> None:
    table = Table(torch.arange(200.0, dtype=torch.float64).reshape(100, 2), ("a", "b"), levels=17)
    parts = split_rows(100, val=0.1, test=0.25, seed=3)
    for seeds in (SEEDS, {}):  # those of the run have no effect
        splits = split_table(
            table, val=0.1, test=0.25, seed=3, seeds=seeds, device=CPU, dtype=torch.float32
        )
        for name, part in parts.items():
            split = getattr(splits, name)
            assert torch.equal(split.x, table.values[part].float())
            assert split.x.dtype == torch.float32
            assert (split.density, split.columns, split.levels) == (None, ("a", "b"), 17)


def test_a_table_too_short_for_its_splits_is_refused_before_one_is_asked_for() -> None:
    table = Table(torch.zeros(10, 2), ("a", "b"))
    settings: dict[str, Any] = {"seeds": SEEDS, "device": CPU, "dtype": torch.float32}
    message = refusal(lambda: split_table(table, val=0.5, test=0.5, seed=0, **settings))
    assert message.startswith("10 rows with val=0.5 and test=0.5 leave 0 for train; each split")


# --- rows with what they are conditional on -----------------------------------------------------


def conditional(kinds: list[str]) -> Splits:
    """Return the splits of a table whose rows know their kind: x is its place in the alphabet."""
    x = torch.tensor([[float(ord(kind)), 0.5] for kind in kinds], dtype=torch.float64)
    given = {"kind": np.array(kinds, dtype=object), "size": x[:, 0].numpy() / 7}
    table = Table(x, ("x", "y"), given=given)
    settings: dict[str, Any] = {"seeds": {}, "device": CPU, "dtype": torch.float32}
    return split_table(table, val=0.2, test=0.2, seed=0, **settings)


def test_every_row_keeps_its_condition_when_it_is_dealt() -> None:
    splits = conditional(list("abc") * 20)
    for name in ("train", "val", "test", "train_sample"):
        split = getattr(splits, name)
        assert split.context is not None
        assert (split.context.shape, split.context.dtype) == ((len(split.x), 4), torch.float32)
        kinds = split.condition.decode(split.context)["kind"].tolist()
        assert [float(ord(kind)) for kind in kinds] == split.x[:, 0].tolist()
        sizes = torch.from_numpy(split.condition.decode(split.context)["size"])
        torch.testing.assert_close(7 * sizes, split.x[:, 0].double(), rtol=1e-5, atol=1e-5)
    train = splits.train.context
    assert train is not None
    torch.testing.assert_close(train[:, 3].mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(train[:, 3].std(correction=0), torch.tensor(1.0))


def test_the_rows_are_dealt_as_they_are_without_a_condition() -> None:
    kinds = list("abc") * 20
    splits = conditional(kinds)
    parts = split_rows(60, val=0.2, test=0.2, seed=0)
    for name, part in parts.items():
        x = [float(ord(kinds[row])) for row in part.tolist()]
        assert getattr(splits, name).x[:, 0].tolist() == x


def test_a_kind_that_no_training_row_has_is_refused_by_name() -> None:
    kinds = list("ab") * 20
    kinds[int(split_rows(40, val=0.2, test=0.2, seed=0)["test"][0])] = "rare"
    message = refusal(lambda: conditional([kind[0] for kind in kinds]))
    assert "'r' is unknown; known: 'a', 'b', in the training rows: drop such rows" in message
