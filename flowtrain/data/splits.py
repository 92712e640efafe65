"""Train, validation and test points: sampled from a density, or a table split at random."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.data.condition import ContextEncoder, condition_of
from flowtrain.data.read import Table
from flowtrain.densities.conditional import Conditional, log_prob_under
from flowtrain.densities.density import Density
from flowtrain.densities.target import Target
from flowtrain.errors import UserError

BEGINNING = 10_000  # points of the Gaussian that a flow begins at, where there are no others


@dataclass(frozen=True)
class Split:
    """Points to train on or to evaluate by.

    Args:
        x: (n, d), on the device that trains.
        density: what they were sampled from; None where it is not known.
        columns: names of a table's d columns.
        levels: that each value had before it was dequantised; None for others.
        grid: of a table whose columns were spread over their cells, as `Table` has it.
        context: what the points are conditional on, (n, c), in their type and on their device;
            None where they are on nothing.
        condition: what turned a user's words into that context.

    >>> from flowtrain.densities import Rings
    >>> density = Rings(radii=[1.0, 2.0], noise=0.1)
    >>> split = Split(density.sample(5, torch.Generator().manual_seed(0)), density)
    >>> split.x.shape, split.log_p.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    x: Tensor
    density: Density | Conditional | None = None
    columns: tuple[str, ...] = ()
    levels: int | None = None
    grid: tuple[float, ...] = ()
    context: Tensor | None = None
    condition: ContextEncoder | None = None

    @cached_property
    def log_p(self) -> Tensor:
        """The points' exact log-density in nats, (n,), in float64 on the CPU."""
        assert self.density is not None
        context = None if self.context is None else self.context.cpu().double()
        return log_prob_under(self.density, self.x.cpu().double(), context)

    def first(self, n: int) -> "Split":
        """Return a split of its first points, n at most."""
        context = None if self.context is None else self.context[:n]
        return replace(self, x=self.x[:n], context=context)

    def draw_context(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Return the conditions of n points drawn anew, (n, c); None where there are none."""
        if self.context is None:
            return None
        rows = torch.randint(len(self.context), (n,), generator=generator)
        return self.context[rows.to(self.context.device)]


class Splits:
    """The three splits of a run, each made when it is first asked for.

    Args:
        make: from "train", "val" or "test" to the split.
        table: the fingerprint of the table that was dealt to them, if it was one.

    >>> sizes = {"train": 8, "val": 2, "test": 2}
    >>> splits = Splits(lambda name: Split(torch.zeros(sizes[name], 2)))
    >>> splits.train.x.shape, splits.val.x.shape
    (torch.Size([8, 2]), torch.Size([2, 2]))
    """

    def __init__(self, make: Callable[[str], Split], table: str | None = None) -> None:
        self._make, self.table = make, table

    @cached_property
    def train(self) -> Split:
        """What the flow is trained on."""
        return self._make("train")

    @cached_property
    def train_sample(self) -> Split:
        """As many training points as validation has: training NLL is measured on them."""
        return self.train.first(len(self.val.x))

    @cached_property
    def val(self) -> Split:
        """What chooses the best checkpoint."""
        return self._make("val")

    @cached_property
    def test(self) -> Split:
        """What is reported once, at the end."""
        return self._make("test")

    def given(self, context: Tensor) -> "Splits":
        """Return the points of one condition, (c,), without it.

        Raises:
            UserError: when a split is asked for that has none.

        >>> split = Split(torch.arange(3.0)[:, None], context=torch.tensor([[0.0], [1.0], [0.0]]))
        >>> Splits(lambda name: split).given(torch.zeros(1)).train.x.flatten().tolist()
        [0.0, 2.0]
        """

        def make(name: str) -> Split:
            split: Split = getattr(self, name)
            assert split.context is not None
            rows = (split.context == context.to(split.context)).all(1)
            if not rows.any():
                told = "" if split.condition is None else f": {split.condition.label(context)}"
                raise UserError(
                    f"none of the {len(rows):,} {name} points is at this condition{told}"
                )
            return replace(split, x=split.x[rows], context=None, condition=None)

        return Splits(make, self.table)


def sample_splits(
    density: Density | Conditional,
    *,
    train: int,
    val: int,
    test: int,
    seeds: dict[str, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Splits:
    """Sample each split from a density, from a seed of its own.

    Args:
        density: what to sample, with conditions if it is of some.
        train, val, test: numbers of points.
        seeds: by the name of the split.
        device: of the points.
        dtype: of the points.

    >>> from flowtrain.densities import Rings
    >>> seeds = {"train": 0, "val": 1, "test": 2}
    >>> splits = sample_splits(
    ...     Rings(radii=[1.0, 2.0], noise=0.1), train=100, val=10, test=10, seeds=seeds,
    ...     device=torch.device("cpu"), dtype=torch.float32)
    >>> splits.train.x.shape, splits.test.log_p.shape
    (torch.Size([100, 2]), torch.Size([10]))
    """
    sizes = {"train": train, "val": val, "test": test}

    def make(name: str) -> Split:
        generator = torch.Generator().manual_seed(seeds[name])
        if isinstance(density, Density):
            return Split(density.sample(sizes[name], generator).to(device, dtype), density)
        x, context = density.sample(sizes[name], generator)
        return Split(
            x.to(device, dtype),
            density,
            context=context.to(device, dtype),
            condition=condition_of(density),
        )

    return Splits(make)


def no_points(
    target: Target, *, seeds: dict[str, int], device: torch.device, dtype: torch.dtype
) -> Splits:
    """Return splits for a target of which no points are known: val and test are empty.

    Train has points of the Gaussian that a flow begins at, to which its whitening is fitted.

    Args:
        target: known by its log-density alone.
        seeds: by the name of the split.
        device: of the points.
        dtype: of the points.

    >>> target = Target(lambda x: -x.square().sum(1) / 2, dim=3, window=(-6.0, 6.0))
    >>> splits = no_points(
    ...     target, seeds={"train": 0}, device=torch.device("cpu"), dtype=torch.float32)
    >>> splits.train.x.shape, splits.test.x.shape
    (torch.Size([10000, 3]), torch.Size([0, 3]))
    """

    def make(name: str) -> Split:
        if name != "train":
            return Split(torch.empty(0, target.dim, device=device, dtype=dtype), target)
        generator = torch.Generator().manual_seed(seeds["train"])
        start = target.approximation.sample(BEGINNING, generator)
        return Split(start.to(device, dtype), target)

    return Splits(make)


def split_table(
    table: Table,
    *,
    val: float,
    test: float,
    seed: int,
    seeds: dict[str, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Splits:
    """Split a table's rows at random, each with its condition.

    The kinds, means and deviations of the conditions are those of the training rows.

    Args:
        table: the points.
        val, test: fractions of the rows; train has the rest.
        seed: decides alone, so that runs with other seeds compare.
        seeds: of the run; without effect here.
        device: of the points.
        dtype: of the points.

    Raises:
        UserError: a split would have fewer than 2 rows, or a condition is refused.

    >>> from flowtrain.data.read import Table
    >>> table = Table(torch.arange(20.0).reshape(10, 2), columns=("height", "width"))
    >>> splits = split_table(
    ...     table, val=0.2, test=0.2, seed=0, seeds={},
    ...     device=torch.device("cpu"), dtype=torch.float32)
    >>> splits.train.x.shape, splits.val.x.shape, splits.test.columns
    (torch.Size([6, 2]), torch.Size([2, 2]), ('height', 'width'))
    """
    rows = split_rows(len(table.values), val=val, test=test, seed=seed)
    condition, context = _conditions(table, rows["train"])

    def make(name: str) -> Split:
        return Split(
            table.values[rows[name]].to(device=device, dtype=dtype),
            columns=table.columns,
            levels=table.levels,
            grid=table.grid,
            context=None if context is None else context[rows[name]].to(device, dtype),
            condition=condition,
        )

    return Splits(make, table.fingerprint)


def _conditions(table: Table, train: Tensor) -> tuple[ContextEncoder | None, Tensor | None]:
    """Return what a table's rows are conditional on, learned from the training rows; and each's."""
    if not table.given:
        return None, None
    condition = ContextEncoder.fit(table.given, train.tolist(), table.categorical)
    try:
        return condition, condition.encode(table.given)
    except UserError as error:
        raise UserError(
            f"{error}, in the training rows: drop such rows, or try another splits.seed"
        ) from None


def split_rows(n: int, *, val: float, test: float, seed: int) -> dict[str, Tensor]:
    """Deal n rows at random to train, val and test: their positions; the seed alone decides.

    Args:
        n: the number of rows.
        val, test: fractions of the rows; train has the rest.
        seed: of the permutation.

    Raises:
        UserError: a split would have fewer than 2 rows.

    >>> rows = split_rows(10, val=0.2, test=0.2, seed=0)
    >>> {name: len(positions) for name, positions in rows.items()}
    {'train': 6, 'val': 2, 'test': 2}
    >>> torch.cat(list(rows.values())).sort().values.tolist() == list(range(10))
    True
    """
    sizes = {"val": round(val * n), "test": round(test * n)}
    sizes = {"train": n - sum(sizes.values())} | sizes
    for name, size in sizes.items():
        if size < 2:
            if n < 6:
                advice = "these are too few rows"
            elif name == "train":
                advice = "lower splits.val or splits.test"
            else:
                advice = f"raise splits.{name} to {math.ceil(200 / n) / 100:g}"
            raise UserError(
                f"{n} row{'s' * (n > 1)} with val={val:g} and test={test:g} leave "
                f"{max(size, 0)} for {name}; each split needs 2: {advice}"
            )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return dict(zip(sizes, order.split(list(sizes.values())), strict=True))
