"""What points are conditional on: a user's words and numbers as the rows that a flow reads."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from flowtrain.data.condition_column import Category, Cells, Number, as_text, learned, restored
from flowtrain.densities.conditional import Components, Conditional
from flowtrain.densities.interval import Rotations, Varied
from flowtrain.errors import UserError
from flowtrain.text import listed


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

        Args:
            cells: by name the columns, (n,) each.
            train: the training rows, from which kinds, means and deviations come; None is all.
            categorical: the names of those that are categories, all others being numbers; None
                leaves it to their values, as `learned` says.

        Raises:
            UserError: a column is refused.

        >>> ages = np.array([31, 47, 25, 62, 38, 29])
        >>> print(ContextEncoder.fit({"smoker": np.array(["yes", "no"] * 3), "age": ages}))
        smoker (no or yes), age (a number, 25 to 62 in training)
        """
        kinds = {name: None if categorical is None else name in categorical for name in cells}
        return cls(tuple(learned(name, cells[name], train, category=kinds[name]) for name in cells))

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
        return ", ".join(f"{name}={as_text(value)}" for name, value in values)

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
        condition = cls(tuple(restored(each) for each in state))
        if len({*condition.names}) < len(condition.names):
            raise ValueError("two columns have one name")
        return condition


def condition_of(law: Conditional) -> ContextEncoder:
    """Return what reads and writes the conditions of a known law.

    >>> from flowtrain.densities import Rings
    >>> from flowtrain.densities.conditional import Components
    >>> print(condition_of(Components(Rings(radii=[1.0, 2.0], noise=0.1))))
    component (0 or 1)
    """
    if isinstance(law, Components):
        return ContextEncoder((Category(law.name, tuple(map(str, range(law.context_dim)))),))
    assert isinstance(law, Rotations | Varied)
    drawn = law.interval
    return ContextEncoder((Number(law.name, drawn.mean, drawn.std, drawn.low, drawn.high),))


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
