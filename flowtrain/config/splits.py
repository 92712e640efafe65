"""The group `splits`: where the training, validation and test points come from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flowtrain.config.section import Section, Seed

AtLeastTwo = Annotated[int, Field(ge=2, le=10**9)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Splits(Section):
    """The base of the group.

    >>> from flowtrain.densities import Rings
    >>> section = Sampled(name="sampled", train=8, val=2, test=2)
    >>> seeds, cpu = {"train": 0, "val": 1, "test": 2}, torch.device("cpu")
    >>> splits = section.build(
    ...     Rings(radii=[1.0], noise=0.1), seeds=seeds, device=cpu, dtype=torch.float32)
    >>> splits.train.x.shape
    torch.Size([8, 2])
    """

    name: str


class Sampled(Splits):
    """Points sampled from a density once, each split from a seed of its own."""

    owner: ClassVar[str] = "flowtrain.data.splits:sample_splits"
    name: Literal["sampled"]
    train: AtLeastTwo
    val: AtLeastTwo
    test: AtLeastTwo


class NoPoints(Splits):
    """No points: of a target that is known by its log-density alone none can be drawn."""

    owner: ClassVar[str] = "flowtrain.data.splits:no_points"
    name: Literal["none"]


class Random(Splits):
    """The rows of a table, split at random."""

    owner: ClassVar[str] = "flowtrain.data.splits:split_table"
    name: Literal["random"]
    val: Share
    test: Share
    seed: Seed
