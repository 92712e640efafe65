"""Points in groups by what is given of them: each kind of a category, thirds of a number."""

import math

import numpy as np
import torch
from torch import Tensor

from flowtrain.data.condition import ContextEncoder
from flowtrain.data.condition_column import Category


def groups(condition: ContextEncoder, context: Tensor) -> dict[str, Tensor]:
    """Return by label which points belong to each group, (n,) booleans; a point is in several.

    Args:
        condition: what the context stands for.
        context: of the points, (n, c).

    >>> from flowtrain.data.condition_column import Number
    >>> age = Number("age", mean=40.0, std=10.0, low=18.0, high=70.0)
    >>> condition = ContextEncoder((Category("smoker", ("no", "yes")), age))
    >>> context = condition.encode({"smoker": ["no", "yes", "no"], "age": [20, 30, 60]})
    >>> {label: which.tolist() for label, which in groups(condition, context).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'smoker=no': [True, False, True], 'smoker=yes': [False, True, False],
     'age<27': [True, False, False], '27<=age<40': [False, True, False],
     'age>=40': [False, False, True]}
    """
    found: dict[str, Tensor] = {}
    for column in condition.columns:
        cells = condition.decode(context)[column.name]
        if isinstance(column, Category):
            for value in column.values:
                found[f"{column.name}={value}"] = torch.from_numpy(cells == value)
            continue
        values = cells.astype(np.float64)
        # Rounded to a tenth of the spread, so that a short label says exactly who is in it.
        decimals = 1 - math.floor(math.log10(column.std))
        cuts = np.quantile(values, [1 / 3, 2 / 3])
        first, second = (round(cut, decimals) for cut in cuts.tolist())
        name, low, high = column.name, f"{first:.12g}", f"{second:.12g}"
        found[f"{name}<{low}"] = torch.from_numpy(values < first)
        found[f"{low}<={name}<{high}"] = torch.from_numpy((values >= first) & (values < second))
        found[f"{name}>={high}"] = torch.from_numpy(values >= second)
    return found
