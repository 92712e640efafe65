"""A column of a condition: kinds or numbers, what tells them apart, and how a flow reads them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowtrain.data.source import MISSING, not_finite
from flowtrain.errors import UserError
from flowtrain.flows.statistics import mean_and_deviation
from flowtrain.text import listed
from flowtrain.untrusted import is_number, to_float

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
        texts = [as_text(cell) for cell in cells.tolist()]
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


def learned(
    name: str, cells: Cells, train: Sequence[int] | None, *, category: bool | None
) -> Category | Number:
    """Learn from a table what a column of a condition is.

    Args:
        name: of the column.
        cells: as they stand in the table, (n,).
        train: the training rows, from which kinds, mean and deviation come; None is all.
        category: whether it is one; None takes texts for categories, and whole numbers of at most
            `FEW` kinds with `EACH` rows each; other numbers are numbers.

    Raises:
        UserError: a value is missing, not finite or no number, the column is constant over the
            training rows, or a category has more than `MOST` kinds.

    >>> years = np.arange(2020, 2023).repeat(5)
    >>> print(learned("year", years, None, category=None))
    year (2020, 2021 or 2022)
    >>> print(learned("year", years, None, category=False))
    year (a number, 2020 to 2022 in training)
    """
    refuse_missing(name, cells)
    rows = slice(None) if train is None else np.asarray(train)
    numbers = as_numbers(cells) if cells.dtype.kind != "b" or category is False else None
    if numbers is not None:
        for row in np.flatnonzero(~np.isfinite(numbers))[:1]:
            raise UserError(f"{_where(name, cells, row)}: {not_finite(numbers[row])}")
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
    values = [as_text(value) for value in found]  # numbers come in their order
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
    if values.min() == values.max():  # its deviation may be a rounding above 0
        raise _constant(name)
    mean, std = (float(each[0]) for each in mean_and_deviation(values[:, None]))
    if not 0 < std < math.inf:
        raise UserError(
            f"condition {name!r} spans from {values.min():g} to {values.max():g}, more than "
            "float64 can tell; rescale it"
        )
    return Number(name, mean, std, float(values.min()), float(values.max()))


def _constant(name: str) -> UserError:
    return UserError(f"condition {name!r} is the same in every training row; leave it out")


def restored(state: Any) -> Category | Number:
    """Return the column that its fields in plain containers stand for.

    Raises:
        ValueError: they are no column's.

    >>> restored({"name": "smoker", "values": ["no", "yes"]})
    Category(name='smoker', values=('no', 'yes'))
    """
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
        return np.array([to_float(value) for value in values])
    except (TypeError, ValueError):
        return None


def as_text(cell: Any) -> str:
    """Return a cell as a user would write it.

    >>> as_text(3.0), as_text(0.5), as_text(" yes ")
    ('3', '0.5', 'yes')
    """
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(float(cell))
    return str(cell).strip()


def _whole(text: str) -> str:
    """Return a whole number as it is written shortest; another text as it is."""
    try:
        return as_text(to_float(text))
    except ValueError:
        return text


def _is_finite(cell: Any) -> bool:
    try:
        return math.isfinite(to_float(cell))
    except (TypeError, ValueError):
        return False


def refuse_missing(name: str, cells: Cells) -> None:
    """Refuse a column, (n,), in which a value is missing.

    Raises:
        UserError: with its row.

    >>> refuse_missing("smoker", np.array(["yes", "no"]))
    """
    for row in np.flatnonzero(absent(cells))[:1]:
        raise UserError(f"{_where(name, cells, int(row))}: {MISSING}")


def absent(cells: Cells) -> NDArray[np.bool_]:
    """Return where a column, (n,), lacks a value: it is blank, nan or what stands for none.

    >>> absent(np.array(["yes", " "])).tolist(), absent(np.array([1.0, np.nan])).tolist()
    ([False, True], [False, True])
    """
    if cells.dtype.kind in "biu":
        return np.zeros(len(cells), dtype=bool)
    lacking = [
        not cell.strip() if isinstance(cell, str) else str(cell) in _NOTHING
        for cell in cells.tolist()
    ]
    return np.array(lacking, dtype=bool)


def _where(name: str, cells: Cells, row: int) -> str:
    return f"condition {name!r}" + f", row (from 0) {row}" * (len(cells) > 1)


_NOTHING = ("None", "nan", "<NA>", "NaT")  # as Python, numpy and pandas write what is not there


def _either(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
