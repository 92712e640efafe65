"""The group `objective`: what training minimises, in one phase or several."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from flowtrain.config.own_code import ImportString, build_own
from flowtrain.config.section import Count, Fraction, FullPath, Positive, Section

LARGEST_REFERENCE = 1024  # points of a posterior mean by default: the cost grows with their square


class Objective(Section):
    """The base of the group.

    Attributes:
        solves_ode: whether training solves the ODE of a continuous flow.
        integrates_path: whether it can penalise the path of a continuous flow.
        needs_velocity: whether it trains a velocity, so that it fits continuous flows alone.
        needs_density: whether it asks the data for their log-density, at the flow's own samples.
        needs_teacher: whether it learns from another run.
        stackable: whether its losses of several flows can be computed as one, if it solves no ODE.
        criterion: the metric by which the best weights are chosen, the lower the better.

    >>> objective = MaximumLikelihood(name="maximum_likelihood")
    >>> list(objective.phases(lr=1e-3))  # one, of the whole run
    [(MaximumLikelihood(name='maximum_likelihood'), 1.0, 0.001)]
    """

    solves_ode: ClassVar[bool] = False
    integrates_path: ClassVar[bool] = False
    needs_velocity: ClassVar[bool] = False
    needs_density: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    stackable: ClassVar[bool] = False
    criterion: ClassVar[str] = "nll/val"
    name: str

    def phases(self, lr: float) -> Iterator[tuple["Objective", float, float]]:
        """Yield for each phase its objective, the fraction of the time it ends at, its largest lr.

        Args:
            lr: the optimizer's learning rate.
        """
        yield self, 1.0, lr

    def done(self, steps: float) -> float:
        """Return the fraction of a run's time that a fraction of its steps takes."""
        return steps

    def held(self, rows: int, dim: int) -> dict[str, int]:
        """Return how many numbers it holds at least, by the key that asks for them.

        What a flow makes of a batch of so many rows is not among them.
        """
        return {}

    def value(self, metrics: dict[str, float]) -> float:
        """Return an evaluation's criterion; it is infinite where it is not there."""
        return metrics.get(self.criterion, math.inf)


class MaximumLikelihood(Objective):
    owner: ClassVar[str] = "flowtrain.training.objectives:MaximumLikelihood"
    solves_ode: ClassVar[bool] = True
    integrates_path: ClassVar[bool] = True
    stackable: ClassVar[bool] = True
    name: Literal["maximum_likelihood"]


class ReverseKL(Objective):
    owner: ClassVar[str] = "flowtrain.training.objectives:ReverseKL"
    solves_ode: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True
    criterion: ClassVar[str] = "kl_reverse/val"
    name: Literal["reverse_kl"]
    gradient: Literal["total", "path"]
    annealing: Fraction

    def value(self, metrics: dict[str, float]) -> float:
        """Return KL(model | data), which is log Z - ELBO; -ELBO where log Z is not known."""
        return metrics.get(self.criterion, -metrics.get("elbo/val", -math.inf))


class FlowMatching(Objective):
    owner: ClassVar[str] = "flowtrain.training.flow_matching:FlowMatching"
    needs_velocity: ClassVar[bool] = True
    stackable: ClassVar[bool] = True
    name: Literal["flow_matching"]
    coupling: Literal["independent", "optimal_transport"]
    path: Literal["linear", "variance_preserving"]
    times: Literal["uniform", "stratified", "logit_normal", "likelihood"]
    targets: Literal["sample", "posterior_mean"]
    reference: Annotated[int, Field(ge=2, le=10**12)] | None

    @model_validator(mode="after")
    def _posterior_means_are_of_independent_pairs(self) -> Self:
        if self.targets == "sample" and self.reference is not None:
            raise ValueError("reference has no effect with targets=sample; leave it null")
        if self.targets == "posterior_mean" and self.coupling != "independent":
            raise ValueError(
                "targets=posterior_mean needs coupling=independent; try targets=sample"
            )
        return self

    def held(self, rows: int, dim: int) -> dict[str, int]:
        if self.coupling == "optimal_transport":  # the cost of each pair
            return {"trainer.batch_size": rows**2}
        if self.targets == "posterior_mean":  # the weight of each pair
            return {"trainer.batch_size": min(rows, self.reference or LARGEST_REFERENCE) ** 2}
        return {}


class FlowMatchingThenLikelihood(FlowMatching):
    """Flow matching up to a fraction of the run's time, maximum likelihood from there on.

    A step of likelihood, which solves an ODE, counts as `COST` of flow matching: so the fraction
    means the same in a run that is limited by steps and in one that is limited by seconds.

    >>> matching = {"coupling": "independent", "path": "linear", "times": "stratified",
    ...     "targets": "sample", "reference": None}
    >>> objective = FlowMatchingThenLikelihood(
    ...     name="flow_matching_then_likelihood", switch=0.5, likelihood_lr=1e-2, **matching)
    >>> steps = objective.COST / (1 + objective.COST)  # after so many of them likelihood begins
    >>> round(objective.done(steps), 6)
    0.5
    """

    COST: ClassVar[float] = 50.0

    solves_ode: ClassVar[bool] = True
    integrates_path: ClassVar[bool] = True
    name: Literal["flow_matching_then_likelihood"]  # type: ignore[assignment]
    switch: float = Field(gt=0, lt=1)
    likelihood_lr: Positive

    def phases(self, lr: float) -> Iterator[tuple[Objective, float, float]]:
        own = {key: getattr(self, key) for key in FlowMatching.model_fields if key != "name"}
        yield FlowMatching(name="flow_matching", **own), self.switch, lr
        yield MaximumLikelihood(name="maximum_likelihood"), 1.0, self.likelihood_lr

    def done(self, steps: float) -> float:
        cheap = self.COST * self.switch
        until = cheap / (cheap + 1 - self.switch)
        if steps < until:
            return self.switch * steps / until
        if steps >= 1:
            return 1.0  # the sum may round to less, and a run never end
        return self.switch + (1 - self.switch) * (steps - until) / (1 - until)


class Reflow(Objective):
    owner: ClassVar[str] = "flowtrain.training.reflow:reflow"
    needs_velocity: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    name: Literal["reflow"]
    teacher: FullPath
    pairs: Count

    def held(self, rows: int, dim: int) -> dict[str, int]:
        return {"objective.pairs": 2 * self.pairs * dim}


class Custom(Objective):
    """An objective of the user's own: a class or function of a Python file, and its arguments."""

    name: Literal["custom"]
    target: ImportString
    arguments: dict[str, Any]

    def build(self, *positional: Any, **context: Any) -> Any:
        return build_own("objective", self.target, self.arguments)
