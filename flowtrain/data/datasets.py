"""Points without a known law: scikit-learn's small sets, and how points are checked and split."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flowtrain.data.tables import Table, listed
from flowtrain.errors import UserError

SKLEARN = ("digits", "iris", "wine", "breast_cancer")
LEVELS = 17  # grey levels of a pixel of the digits: 0 to 16
# Even a Gaussian fitted to n rows of d columns loses about d (d + 3) / 4n nats of held-out NLL to
# the noise in its own parameters; at 50 rows a column that is 0.025 nats for d = 2, 0.3 for d = 64.
ROWS_PER_COLUMN = 50


def split(values: Tensor, *, validation: float, test: float, seed: int) -> dict[str, Tensor]:
    """Deal rows (n, d) at random into train, validation and test; the seed alone decides.

    Args:
        validation, test: fractions of the rows; train has the rest.

    Raises:
        UserError: a part would have fewer than 2 rows.
    """
    n = len(values)
    sizes = {"validation": round(validation * n), "test": round(test * n)}
    sizes = {"train": n - sum(sizes.values())} | sizes
    for name, size in sizes.items():
        if size < 2:
            raise UserError(
                f"{n} rows with validation={validation:g} and test={test:g} leave "
                f"{max(size, 0)} for {name}; each part needs 2"
            )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    parts = order.split(list(sizes.values()))
    return {name: values[part] for name, part in zip(sizes, parts, strict=True)}


def check(values: Tensor, columns: Sequence[str]) -> list[str]:
    """Return a warning for each thing about rows (n, d) that makes a likelihood doubtful.

    Raises:
        UserError: a column is constant: no density on R^d has such points.
    """
    n, d = values.shape
    constant = (values == values[0]).all(0)
    if constant.any():
        names = listed([name for name, same in zip(columns, constant, strict=True) if same])
        raise UserError(f"constant, so without a density: {names}; choose the other columns")
    warnings = []
    rows = np.ascontiguousarray(values.numpy() + 0.0)  # -0.0 and 0.0 differ in bytes
    repeated = n - len(np.unique(rows.view(np.dtype((np.void, rows.itemsize * d)))))
    if repeated:
        warnings.append(
            f"{repeated} of {n} rows ({100 * repeated / n:.2g} %) repeat another: a flow can raise "
            "its likelihood without bound there, and train and test may share points"
        )
    if n < ROWS_PER_COLUMN * d:
        warnings.append(
            f"{n} rows for {d} columns are few: below {ROWS_PER_COLUMN} a column even a Gaussian "
            "overfits; watch nll/val, and stop early"
        )
    return warnings


def load_sklearn(name: str, *, generator: torch.Generator) -> Table:
    """Load one of scikit-learn's sets that come with it: digits, iris, wine or breast_cancer.

    The digits are dequantised, (pixel + u) / 17 with u uniform on [0, 1) from the generator: 64
    columns on [0, 1]; `bits_per_dimension` turns their NLL back. The others are as they are.

    Raises:
        UserError: the name is another.
    """
    if name not in SKLEARN:
        raise UserError(f"{name!r} is no set of scikit-learn's; choose from {', '.join(SKLEARN)}")
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")()
    values = torch.from_numpy(np.asarray(loaded.data, dtype=np.float64))
    if name == "digits":
        values = (
            values + torch.rand(values.shape, generator=generator, dtype=values.dtype)
        ) / LEVELS
    levels = LEVELS if name == "digits" else None
    return Table(values, tuple(str(column) for column in loaded.feature_names), levels=levels)


def bits_per_dimension(nll_nats: float, *, dim: int, levels: int) -> float:
    """Turn the NLL of dequantised points on [0, 1]^dim, in nats, into bits per dimension.

    A cell of side 1 / levels around a discrete point has probability P = ∫ q over the cell, and
    by Jensen -log P <= E[-log q] + dim log(levels): the bound nll / (dim log 2) + log2(levels)
    on the discrete points' code length (Theis et al. 2016, arXiv:1511.01844).
    """
    return nll_nats / (dim * math.log(2)) + math.log2(levels)
