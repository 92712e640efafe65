"""The small data sets that come with scikit-learn."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from flowtrain.config.data import Sklearn
from flowtrain.config.section import names
from flowtrain.data.read import Table
from flowtrain.errors import UserError

SETS = names(Sklearn)
LEVELS = 17  # grey levels of a pixel of the digits: 0 to 16


def load_sklearn(name: str, *, condition: Literal["target"] | None = None, seed: int = 0) -> Table:
    """Load one of scikit-learn's sets that come with it, a name of `SETS`.

    The digits are dequantised, (pixel + u) / 17 with u uniform on [0, 1): 64 columns on [0, 1];
    `bits_per_dimension` turns their NLL back. The others are as they are.

    Args:
        name: of the set.
        condition: "target" if the points are to know their class, by its name, or their number.
        seed: of the noise. It belongs to the data: runs with other seeds have the same noise.

    Raises:
        UserError: the name is another.

    >>> iris = load_sklearn("iris")
    >>> iris.values.shape, iris.columns[0]
    (torch.Size([150, 4]), 'sepal length (cm)')
    >>> load_sklearn("digits").levels
    17
    >>> load_sklearn("iris", condition="target").given["target"][-1]
    'virginica'
    """
    if name not in SETS:
        raise UserError(f"{name!r} is no set of scikit-learn's; choose from {', '.join(SETS)}")
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")()
    values = torch.from_numpy(np.asarray(loaded.data, dtype=np.float64))
    if name == "digits":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(values.shape, generator=generator, dtype=values.dtype)
        values = (values + noise) / LEVELS
    levels = LEVELS if name == "digits" else None
    given: dict[str, NDArray[Any]] = {}
    if condition is not None:
        kinds, target = getattr(loaded, "target_names", None), np.asarray(loaded.target)
        given["target"] = target if kinds is None else np.asarray(kinds)[target].astype(object)
    columns = tuple(str(column) for column in loaded.feature_names)
    return Table(values, columns, levels=levels, given=given)
