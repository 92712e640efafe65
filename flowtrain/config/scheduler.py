"""The group `scheduler`: the learning rate over a phase of the run, by steps or by time."""

import math
from typing import Literal

from pydantic import Field

from flowtrain.config.section import Fraction, Section


class Scheduler(Section):
    """The base of the group: a linear rise, then what a subclass says.

    >>> Cosine(name="cosine", warmup=0.1, final=0.0).lr(1.0, done=0.05)
    0.5
    """

    name: str
    warmup: Fraction

    def lr(self, max_lr: float, done: float) -> float:
        """Return the learning rate after a fraction `done` of a phase, in [0, 1]."""
        if done < self.warmup:
            return max_lr * done / self.warmup
        return max_lr * self.after_warmup((done - self.warmup) / (1 - self.warmup))

    def after_warmup(self, done: float) -> float:
        """Return the fraction of the largest learning rate, after a fraction of what is left."""
        raise NotImplementedError


class Constant(Scheduler):
    """After the rise, the largest learning rate.

    >>> schedule = Constant(name="constant", warmup=0.1)
    >>> schedule.lr(1.0, done=0.05), schedule.lr(1.0, done=0.5)
    (0.5, 1.0)
    """

    name: Literal["constant"]

    def after_warmup(self, done: float) -> float:
        return 1.0


class Cosine(Scheduler):
    """After the rise, half a cosine down to a fraction of the largest learning rate.

    Attributes:
        final: that fraction.

    >>> schedule = Cosine(name="cosine", warmup=0.0, final=0.1)
    >>> schedule.lr(1.0, done=0.0), schedule.lr(1.0, done=0.5), schedule.lr(1.0, done=1.0)
    (1.0, 0.55, 0.1)
    """

    name: Literal["cosine"]
    final: float = Field(ge=0, le=1)

    def after_warmup(self, done: float) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))
