"""The encoder of conditions: what becomes a category or a number, and what is refused by name."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flowtrain.data.condition import ContextEncoder
from flowtrain.data.condition_column import Category, Number
from flowtrain.errors import UserError

AGES = np.array([21.0, 80.0, 44.5, 60.0, 33.0])
AGE = Number("age", mean=40.0, std=10.0, low=21.0, high=80.0)
BOTH = ContextEncoder((Category("species", ("0", "1", "2")), AGE))


def refusal(action: Callable[[], Any]) -> str:
    """Return what the user is told, one line."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["1", "10", "2"] * 5, ("1", "2", "10")),  # in the order of numbers
        (["1.0", "2", "2.0"] * 5, ("1", "2")),
        (["01", "a"], ("01", "a")),
        (np.arange(20).repeat(5), tuple(map(str, range(20)))),
        (np.array([0.0, 1.0]).repeat(5), ("0", "1")),
        (np.array([True, False]), ("False", "True")),
        ([True, "x"], ("True", "x")),
        (np.array([b"a", b"b"]).astype(str), ("a", "b")),
    ],
)
def test_texts_and_few_whole_numbers_are_categories(cells: Any, values: tuple[str, ...]) -> None:
    column = np.array(cells, dtype=object) if isinstance(cells, list) else cells
    condition = ContextEncoder.fit({"kind": column})
    assert condition.columns == (Category("kind", values),)
    context = condition.encode({"kind": column})
    assert context.shape == (len(column), len(values))
    assert context.dtype == torch.float64
    assert torch.equal(context.sum(1), torch.ones(len(column), dtype=torch.float64))
    assert {*condition.decode(context)["kind"]} == {*values}


@pytest.mark.parametrize(
    "cells",
    [
        np.arange(21).repeat(5),  # too many kinds
        np.array([0] * 20 + [1] * 4),  # one of them too rare
        np.array([0.5, 1.0]).repeat(5),  # not whole
        np.array(["3", "1e1", "-2.5"], dtype=object),
    ],
)
def test_other_numbers_are_numbers_whitened_by_the_training_rows(cells: Any) -> None:
    train = [0, 1, len(cells) - 1]
    condition = ContextEncoder.fit({"age": cells}, train)
    (column,) = condition.columns
    assert isinstance(column, Number)
    values = cells.astype(np.float64)
    seen = values[train]
    assert (column.low, column.high) == (seen.min(), seen.max())
    expected = torch.from_numpy((values - seen.mean()) / seen.std())
    context = condition.encode({"age": cells})
    torch.testing.assert_close(context[:, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(condition.decode(context)["age"].astype(float), values, rtol=1e-12)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (np.arange(40), tuple(map(str, range(40)))),  # many kinds, each of them rare
        (np.array([2.0, 1.0]), ("1", "2")),  # codes as floats
        (np.array(["1.50", "0.5"], dtype=object), ("0.5", "1.5")),
        (np.array(["b", "a"]), ("a", "b")),
    ],
)
def test_columns_that_are_named_are_categories(cells: Any, values: tuple[str, ...]) -> None:
    condition = ContextEncoder.fit({"code": cells}, categorical=["code"])
    assert condition.columns == (Category("code", values),)
    assert condition.encode({"code": cells}).argmax(1).tolist() == [
        values.index(f"{float(cell):g}" if cell not in ("a", "b") else cell) for cell in cells
    ]


def test_all_columns_that_are_not_named_are_numbers() -> None:
    cells = {"year": np.arange(2015, 2020).repeat(9), "odd": np.arange(45) % 2 == 1}
    condition = ContextEncoder.fit(cells, categorical=[])
    year, odd = condition.columns
    assert isinstance(year, Number)
    assert isinstance(odd, Number)
    assert (year.mean, year.low, year.high, odd.low, odd.high) == (2017, 2015, 2019, 0, 1)
    assert ContextEncoder.restore(condition.state()) == condition
    assert refusal(lambda: condition.encode({"year": "new", "odd": 1})).endswith("no finite number")


@pytest.mark.parametrize(
    ("cells", "categorical", "expected"),
    [
        (np.arange(101.0), ["kind"], "has 101 kinds, at most 100 are taken; leave it a number"),
        (np.array([1.0, np.inf]), ["kind"], ", row (from 0) 1: inf is not finite; mend or drop"),
        (np.array([3, 3]), ["kind"], "is the same in every training row; leave it out"),
        (np.array([1e308, -1e308]), [], "spans from -1e+308 to 1e+308, more than"),
        (np.full(7, 0.1), [], "is the same in every training row; leave it out"),
        (np.array(["1", "2_0"]), [], ", row (from 0) 1: '2_0' is no number; mend it, or name kind"),
        (np.array(["1", "2O"]), [], ", row (from 0) 1: '2O' is no number; mend it, or name kind in "
         "data.categorical"),
    ],
)  # fmt: skip
def test_what_cannot_be_what_it_is_said_to_be_is_refused(
    cells: Any, categorical: list[str], expected: str
) -> None:
    told = refusal(lambda: ContextEncoder.fit({"kind": cells}, categorical=categorical))
    assert told.startswith("condition 'kind'")
    assert expected in told


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_condition_may_be_of_any_size(scale: float) -> None:
    cells = scale * np.random.default_rng(0).normal(size=200)
    context = ContextEncoder.fit({"c": cells}, categorical=[]).encode({"c": cells})
    assert (float(context.mean()), float(context.std())) == pytest.approx((0, 1), abs=1e-2)


@pytest.mark.parametrize("given", [1, "1", "1.0", 1.0, np.int64(1), " 1 ", torch.tensor(1)])
def test_a_whole_number_may_be_written_in_any_way(given: Any) -> None:
    assert BOTH.encode({"species": given, "age": 40}).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_a_single_value_counts_for_all_rows_and_the_order_of_names_does_not_matter() -> None:
    context = BOTH.encode({"age": [50, 30], "species": 2})
    assert context.tolist() == [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, -1.0]]
    assert (BOTH.dim, BOTH.names) == (4, ("species", "age"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"species": 1}, "'age' is missing; the conditions are species (0, 1 or 2), age (a number"),
        ({}, "'species', 'age' are missing"),
        ({"species": 1, "age": 3, "sex": "f"}, "'sex' is no condition; the conditions are species"),
        ({"species": 7, "age": 3}, "'7' is unknown; known: '0', '1', '2'"),
        ({"species": ["1", "a", "b"], "age": 3}, "row (from 0) 1: 'a', 'b' are unknown"),
        ({"species": 1, "age": "old"}, "condition 'age': 'old' is no finite num"),
        ({"species": 1, "age": float("inf")}, "'inf' is no finite number"),
        ({"species": 1, "age": [3.0, float("nan")]}, "row (from 0) 1: the value is missing"),
        ({"species": "", "age": 3}, "condition 'species': the value is missing"),
        ({"species": None, "age": 3}, "the value is missing"),
        ({"species": [1, 2], "age": [1, 2, 3]}, "differ in rows: 'species' has 2, 'age' has 3"),
        ({"species": np.ones((2, 2)), "age": 3}, "has shape (2, 2); use a value, or (rows,)"),
    ],
)
def test_what_is_missing_or_unknown_is_refused_by_name(
    given: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(lambda: BOTH.encode(given))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a", "a"], "'kind' is the same in every training row; leave it out"),
        ([1.5, 1.5], "the same in every training row"),
        ([7] * 10, "the same in every training row"),
        (["a", None], "row (from 0) 1: the value is missing; fill it or drop the row"),
        (["a", " "], "the value is missing"),
        ([1.0, float("nan")], "the value is missing"),
        ([1.0, float("inf")], "row (from 0) 1: inf is not finite"),
        ([f"name {n}" for n in range(101)], "has 101 kinds of text, at most 100 are taken"),
    ],
)
def test_columns_that_are_no_condition_are_refused(cells: list[Any], expected: str) -> None:
    message = refusal(lambda: ContextEncoder.fit({"kind": np.array(cells, dtype=object)}))
    assert message.startswith("condition 'kind'")
    assert expected in message


def test_the_kinds_are_those_of_the_training_rows() -> None:
    cells = np.array(["a", "b", "c"], dtype=object)
    condition = ContextEncoder.fit({"kind": cells}, [0, 1])
    assert "'c' is unknown; known: 'a', 'b'" in refusal(lambda: condition.encode({"kind": cells}))


def test_a_number_beyond_the_training_rows_is_told() -> None:
    assert list(BOTH.beyond({"species": 1, "age": [22, 80, "20.5"]})) == [
        "age=20.5 lies beyond the training rows, 21 to 80: there the flow has learned nothing"
    ]
    assert list(BOTH.beyond({"species": 1, "age": 40})) == []


def test_the_state_survives_json_to_the_last_bit() -> None:
    condition = ContextEncoder.fit({"age": AGES, "sex": np.array(list("fmffm"))})
    assert ContextEncoder.restore(json.loads(json.dumps(condition.state()))) == condition


@pytest.mark.parametrize(
    "state",
    [
        None, [], {}, [1], [{"name": "a"}], [{"name": "a", "values": []}],
        [{"name": "a", "values": [1]}], [{"name": "a", "values": "ab"}],
        [{"name": "a", "values": ["x"], "more": 1}],
        [{"name": "a", "mean": 0.0, "std": 0.0, "low": 0.0, "high": 1.0}],
        [{"name": "a", "mean": 0.0, "std": float("nan"), "low": 0.0, "high": 1.0}],
        [{"name": "a", "mean": "x", "std": 1.0, "low": 0.0, "high": 1.0}],
        [{"name": "a", "values": ["x"]}, {"name": "a", "values": ["x"]}],
    ],
)  # fmt: skip
def test_a_state_that_is_none_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match="column"):
        ContextEncoder.restore(state)
