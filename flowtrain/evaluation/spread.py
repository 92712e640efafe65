"""What several runs of one setting say of a metric: its mean, and how far chance moves that."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The values of a metric over runs that differ in their seeds.

    >>> spread = Spread((1.0, 2.0, 3.0))
    >>> spread.mean, round(spread.error, 3)
    (2.0, 0.577)
    """

    each: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return math.fsum(self.each) / len(self.each)

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN of a single value."""
        several = len(self.each) > 1 and all(map(math.isfinite, self.each))
        return statistics.stdev(self.each) / math.sqrt(len(self.each)) if several else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return mean, error and values as JSON takes them."""
        return {"mean": self.mean, "error": self.error, "each": list(self.each)}


def spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of every metric that all runs have, by tag.

    Args:
        runs: the metrics of each, by tag.

    >>> spreads([{"kl/test": 0.01, "nll/test": 2.0}, {"kl/test": 0.03}])
    {'kl/test': Spread(each=(0.01, 0.03))}
    """
    first, *others = runs
    shared = [tag for tag in first if all(tag in other for other in others)]
    return {tag: Spread(tuple(run[tag] for run in runs)) for tag in shared}
