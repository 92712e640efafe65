"""What points are conditional on: a user's words and numbers as the rows that a flow reads."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowtrain.data.read import listed
from flowtrain.errors import UserError
from flowtrain.untrusted import is_number

Floats = NDArray[np.float64]
Cells = NDArray[Any]  # (n,) of a column as it stands in a file or an array: numbers or texts

FEW = 20  # kinds of whole numbers at most, that are taken for categories
EACH = 5  # rows at least, of each of them
MOST = 100  # categories of a column at most: each is a column of the context


@dataclass(frozen=True)
class Category:
    """A condition of a few kinds; its context is one-hot.

    Args:
        name: of the column.
        values: its kinds as a user writes them; a whole number may be written as 1, "1" or 1.0.

    >>> species = Category("species", ("setosa", "virginica"))
    >>> species.width, species.encode(np.array(["virginica", "setosa"])).tolist(), str(species)
    (2, [[0.0, 1.0], [1.0, 0.0]], 'species (setosa or virginica)')
    """

    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """The number of its columns of the context."""
        return len(self.values)

    def encode(self, cells: Cells) -> Floats:
        """Return one-hot rows, (n,) -> (n, width).

        Raises:
            UserError: a value is missing or none of the kinds.
        """
        place = {value: index for index, value in enumerate(self.values)}
        texts = [_text(cell) for cell in cells.tolist()]
        found = [place.get(text, place.get(_whole(text), -1)) for text in texts]
        if -1 in found:
            unknown = [*dict.fromkeys(t for t, at in zip(texts, found, strict=True) if at < 0)]
            refuse_missing(self.name, cells)
            raise UserError(
                f"{_where(self.name, cells, found.index(-1))}: {listed(unknown)} "
                f"{'is' if len(unknown) == 1 else 'are'} unknown; known: {listed(self.values)}"
            )
        one_hot: Floats = np.eye(self.width)[found]
        return one_hot

    def decode(self, columns: Floats, _: int) -> Cells:
        """Return the kinds that one-hot rows (n, width) stand for, as texts (n,)."""
        kinds: Cells = np.array(self.values, dtype=object)[columns.argmax(1)]
        return kinds

    def __str__(self) -> str:
        shown = [*self.values[:FEW], *(["..."] if self.width > FEW else [])]
        return f"{self.name} ({_either(shown)})"


@dataclass(frozen=True)
class Number:
    """A condition on the real line; its context has mean 0 and deviation 1 over training rows.

    Args:
        name: of the column.
        mean, std: over the training rows; std is positive.
        low, high: the training rows' range, outside of which a flow has learned nothing.

    >>> age = Number("age", mean=40.0, std=10.0, low=18.0, high=70.0)
    >>> age.encode(np.array([40, 55])).tolist(), str(age)
    ([[0.0], [1.5]], 'age (a number, 18 to 70 in training)')
    """

    name: str
    mean: float
    std: float
    low: float
    high: float

    @property
    def width(self) -> int:
        """The number of its columns of the context."""
        return 1

    def encode(self, cells: Cells) -> Floats:
        """Return whitened numbers, (n,) -> (n, 1).

        Raises:
            UserError: a value is missing, no number, or not finite.
        """
        values = as_numbers(cells)
        if values is None or not np.isfinite(values).all():
            refuse_missing(self.name, cells)
            for row, cell in enumerate(cells.tolist()):
                if not _is_finite(cell):
                    raise UserError(
                        f"{_where(self.name, cells, row)}: {str(cell)[:40]!r} is no finite number"
                    )
        assert values is not None
        return ((values - self.mean) / self.std)[:, None]

    def decode(self, columns: Floats, digits: int) -> Cells:
        """Return the numbers that whitened ones (n, 1) stand for, (n,), to so many digits."""
        values = columns[:, 0] * self.std + self.mean
        return np.array([float(f"{value:.{digits}g}") for value in values.tolist()])

    def __str__(self) -> str:
        return f"{self.name} (a number, {self.low:.6g} to {self.high:.6g} in training)"


@dataclass(frozen=True)
class ContextEncoder:
    """From the columns that points are conditional on to the context of a flow, and back.

    Args:
        columns: of the condition, in the order of the context.

    >>> condition = ContextEncoder.fit({"species": np.repeat(["setosa", "virginica"], 20)})
    >>> condition.encode({"species": ["virginica", "setosa"]})
    tensor([[0., 1.],
            [1., 0.]], dtype=torch.float64)
    >>> condition.encode({"species": "rose"})
    Traceback (most recent call last):
        ...
    flowtrain.errors.UserError: condition 'species': 'rose' is unknown; known: 'setosa', 'virginica'
    """

    columns: tuple[Category | Number, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(column.name for column in self.columns)

    @property
    def dim(self) -> int:
        """The number of columns of the context, c."""
        return sum(column.width for column in self.columns)

    def __str__(self) -> str:
        return ", ".join(map(str, self.columns))

    @classmethod
    def fit(
        cls,
        cells: Mapping[str, Cells],
        train: Sequence[int] | None = None,
        categorical: Collection[str] | None = None,
    ) -> Self:
        """Learn from a table what its conditions are.

        Unless they are named, texts are categories, and so are whole numbers of at most `FEW` kinds
        with `EACH` rows each; other numbers are numbers.

        Args:
            cells: by name the columns, (n,) each.
            train: the training rows, from which kinds, means and deviations come; None is all.
            categorical: the names of those that are categories; all others are numbers.

        Raises:
            UserError: a value is missing, not finite or no number, a column is constant over the
                training rows, or a category has more than `MOST` kinds.

        >>> ages = np.array([31, 47, 25, 62, 38, 29])
        >>> print(ContextEncoder.fit({"smoker": np.array(["yes", "no"] * 3), "age": ages}))
        smoker (no or yes), age (a number, 25 to 62 in training)
        >>> years = {"year": np.arange(2020, 2023).repeat(5)}
        >>> print(ContextEncoder.fit(years)), print(ContextEncoder.fit(years, categorical=[]))
        year (2020, 2021 or 2022)
        year (a number, 2020 to 2022 in training)
        (None, None)
        """
        return cls(
            tuple(
                _fit(name, column, train, None if categorical is None else name in categorical)
                for name, column in cells.items()
            )
        )

    def encode(self, given: Mapping[str, Any]) -> Tensor:
        """Return the context of values in float64: (c,) of one for each column, or (n, c) of n.

        Args:
            given: by name a value for each column, or n values of it; among these a single one
                counts for all.

        Raises:
            UserError: a column is missing or unknown, lengths differ, or a value is refused.

        >>> age = Number("age", mean=40.0, std=10.0, low=18.0, high=70.0)
        >>> condition = ContextEncoder((Category("smoker", ("no", "yes")), age))
        >>> condition.encode({"smoker": "yes", "age": [30, 50]}).tolist()
        [[0.0, 1.0, -1.0], [0.0, 1.0, 1.0]]
        >>> condition.encode({"smoker": "yes", "age": 30}).tolist()
        [0.0, 1.0, -1.0]
        """
        for what, names in (
            ("no condition", [name for name in given if name not in self.names]),
            ("missing", [name for name in self.names if name not in given]),
        ):
            if names:
                verb = "is" if len(names) == 1 else "are"
                raise UserError(f"{listed(names)} {verb} {what}; the conditions are {self}")
        cells = {name: _cells(name, given[name]) for name in self.names}
        lengths = {name: len(column) for name, column in cells.items() if column.ndim}
        if len({*lengths.values()}) > 1:
            told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise UserError(f"conditions differ in rows: {told}")
        rows = next(iter(lengths.values()), 1)
        encoded = [
            np.broadcast_to(part, (rows, column.width))
            for column in self.columns
            for part in [column.encode(np.atleast_1d(cells[column.name]))]
        ]
        context = torch.from_numpy(np.concatenate(encoded, axis=1))
        return context if lengths else context[0]

    def decode(self, context: Tensor) -> dict[str, Cells]:
        """Return by name the values that rows of context (n, c) stand for.

        >>> condition = ContextEncoder((Category("smoker", ("no", "yes")),))
        >>> condition.decode(condition.encode({"smoker": ["yes", "no"]}))["smoker"].tolist()
        ['yes', 'no']
        """
        rows = context.detach().cpu().double().numpy()
        digits = 12 if context.dtype == torch.float64 else 6  # the others are of rounding
        parts = np.split(rows, np.cumsum([column.width for column in self.columns])[:-1], axis=1)
        return {
            column.name: column.decode(part, digits)
            for column, part in zip(self.columns, parts, strict=True)
        }

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n rows of context to try a flow at, (n, c) in float64: kinds alike, numbers normal.

        >>> condition = ContextEncoder((Category("smoker", ("no", "yes")),))
        >>> condition.draw(3, torch.Generator().manual_seed(0)).sum(1).tolist()
        [1.0, 1.0, 1.0]
        """
        parts = []
        for column in self.columns:
            if isinstance(column, Category):
                kinds = torch.randint(column.width, (n,), generator=generator)
                parts.append(torch.nn.functional.one_hot(kinds, column.width).double())
            else:
                parts.append(torch.randn(n, 1, generator=generator, dtype=torch.float64))
        return torch.cat(parts, 1)

    def label(self, context: Tensor) -> str:
        """Return in words what a row of context (c,) stands for.

        >>> age = Number("age", mean=40.0, std=10.0, low=18.0, high=70.0)
        >>> condition = ContextEncoder((Category("smoker", ("no", "yes")), age))
        >>> condition.label(condition.encode({"smoker": "no", "age": 33.5}))
        'smoker=no, age=33.5'
        """
        values = ((name, cells[0]) for name, cells in self.decode(context[None]).items())
        return ", ".join(f"{name}={_text(value)}" for name, value in values)

    def beyond(self, given: Mapping[str, Any]) -> Iterator[str]:
        """Yield a warning for each number that lies beyond those of the training rows.

        >>> condition = ContextEncoder((Number("age", mean=40.0, std=10.0, low=18.0, high=70.0),))
        >>> list(condition.beyond({"age": 99}))
        ['age=99 lies beyond the training rows, 18 to 70: there the flow has learned nothing']
        """
        for column in self.columns:
            if isinstance(column, Number):
                values = np.atleast_1d(_cells(column.name, given[column.name])).astype(np.float64)
                for value in values[(values < column.low) | (values > column.high)][:1]:
                    yield (
                        f"{column.name}={value:g} lies beyond the training rows, {column.low:.6g} "
                        f"to {column.high:.6g}: there the flow has learned nothing"
                    )

    def state(self) -> list[dict[str, Any]]:
        """Return all of it as plain containers, as JSON takes them.

        >>> condition = ContextEncoder((Category("smoker", ("no", "yes")),))
        >>> condition.state()
        [{'name': 'smoker', 'values': ['no', 'yes']}]
        >>> ContextEncoder.restore(condition.state()) == condition
        True
        """
        states = [asdict(column) for column in self.columns]
        return [{k: [*v] if k == "values" else v for k, v in state.items()} for state in states]

    @classmethod
    def restore(cls, state: Any) -> Self:
        """Return the condition that `state` gave.

        Raises:
            ValueError: it is nothing that `state` gives.
        """
        if not isinstance(state, list) or not state:
            raise ValueError("a condition is a list of columns")
        condition = cls(tuple(_restored(each) for each in state))
        if len({*condition.names}) < len(condition.names):
            raise ValueError("two columns have one name")
        return condition


def _fit(
    name: str, cells: Cells, train: Sequence[int] | None, category: bool | None
) -> Category | Number:
    """Learn a column; `category` says what it is, or None that the rule does."""
    refuse_missing(name, cells)
    rows = slice(None) if train is None else np.asarray(train)
    numbers = as_numbers(cells) if cells.dtype.kind != "b" or category is False else None
    if numbers is not None:
        for row in np.flatnonzero(~np.isfinite(numbers))[:1]:
            raise UserError(
                f"{_where(name, cells, row)}: {cells[row]} is not finite; mend or drop the row"
            )
    if category is None:
        category = numbers is None or _are_kinds(numbers)
    if category:
        found = cells[rows].tolist() if numbers is None else np.unique(numbers[rows]).tolist()
        return _category(name, found, texts=numbers is None)
    if numbers is None:
        row = next(row for row, cell in enumerate(cells.tolist()) if not _is_finite(cell))
        raise UserError(
            f"{_where(name, cells, row)}: {str(cells[row])[:40]!r} is no number; mend it, or name "
            f"{name} in data.categorical"
        )
    return _number(name, numbers[rows])


def _are_kinds(numbers: Floats) -> bool:
    """Say whether numbers are taken for categories: whole ones of few kinds, none of them rare."""
    kinds, counts = np.unique(numbers, return_counts=True)
    return len(kinds) <= FEW and counts.min() >= EACH and bool((kinds == kinds.round()).all())


def _category(name: str, found: list[Any], *, texts: bool) -> Category:
    values = [_text(value) for value in found]  # numbers come in their order
    if texts:
        values = sorted({*values})
    if len(values) > MOST:
        of_text = " of text" if texts else ""
        instead = "choose another column, or write numbers" if texts else "leave it a number"
        raise UserError(
            f"condition {name!r} has {len(values):,} kinds{of_text}, at most {MOST} are taken; "
            f"{instead}"
        )
    if len(values) == 1:
        raise _constant(name)
    return Category(name, tuple(values))


def _number(name: str, values: Floats) -> Number:
    std = float(values.std())
    if not 0 < std < math.inf:
        raise _constant(name)
    return Number(name, float(values.mean()), std, float(values.min()), float(values.max()))


def _constant(name: str) -> UserError:
    return UserError(f"condition {name!r} is the same in every training row; leave it out")


def _restored(state: Any) -> Category | Number:
    if isinstance(state, dict) and isinstance(name := state.get("name"), str):
        if {*state} == {"name", "values"} and isinstance(state["values"], list):
            values = tuple(value for value in state["values"] if isinstance(value, str))
            if values and len(values) == len(state["values"]):
                return Category(name, values)
        figures = {key: value for key, value in state.items() if key != "name"}
        whole = {*figures} == {"mean", "std", "low", "high"}
        if whole and all(map(_is_real, figures.values())) and figures["std"] > 0:
            return Number(name, **figures)
    raise ValueError(f"{state!r} is no column of a condition")


def _is_real(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def _cells(name: str, values: Any) -> Cells:
    """Return a value as an array (), or several as one (n,)."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, list | tuple):
        values = np.array([*values], dtype=object)  # numpy would make texts of [1, "a"]
    cells = np.asarray(values)
    if cells.ndim > 1:
        raise UserError(f"condition {name!r} has shape {cells.shape}; use a value, or (rows,)")
    return cells


def as_numbers(cells: Cells) -> Floats | None:
    """Return cells as numbers, (n,); None where one of them is no number.

    >>> as_numbers(np.array(["1", "2.5"])), as_numbers(np.array(["1", "two"]))
    (array([1. , 2.5]), None)
    """
    if cells.dtype.kind in "biuf":
        return cells.astype(np.float64)
    values = cells.tolist()
    if any(isinstance(value, bool) for value in values):
        return None
    try:
        return np.array([float(value) for value in values])
    except (TypeError, ValueError):
        return None


def _text(cell: Any) -> str:
    """Return a cell as a user would write it."""
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(float(cell))
    return str(cell).strip()


def _whole(text: str) -> str:
    """Return a whole number as it is written shortest; another text as it is."""
    try:
        return _text(float(text))
    except ValueError:
        return text


def _is_finite(cell: Any) -> bool:
    try:
        return math.isfinite(float(cell))
    except (TypeError, ValueError):
        return False


def refuse_missing(name: str, cells: Cells) -> None:
    """Refuse a column, (n,), in which a value is missing.

    Raises:
        UserError: with its row.

    >>> refuse_missing("smoker", np.array(["yes", "no"]))
    """
    if cells.dtype.kind in "biu":
        return
    for row, cell in enumerate(cells.tolist()):
        missing = not cell.strip() if isinstance(cell, str) else str(cell) in _NOTHING
        if missing:
            raise UserError(
                f"{_where(name, cells, row)}: the value is missing; fill it or drop the row"
            )


def _where(name: str, cells: Cells, row: int) -> str:
    return f"condition {name!r}" + f", row (from 0) {row}" * (len(cells) > 1)


_NOTHING = ("None", "nan", "<NA>", "NaT")  # as Python, numpy and pandas write what is not there


def _either(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
