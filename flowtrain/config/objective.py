"""The group `objective`: what training minimises, in one phase or several."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from flowtrain.config.own_code import ImportString, build_own
from flowtrain.config.section import Positive, Section


class Objective(Section):
    """The base of the group.

    Attributes:
        solves_ode: whether training solves the ODE of a continuous flow.
        needs_velocity: whether it trains a velocity, so that it fits continuous flows alone.

    >>> objective = MaximumLikelihood(name="maximum_likelihood")
    >>> list(objective.phases(lr=1e-3))  # one, of the whole run
    [(MaximumLikelihood(name='maximum_likelihood'), 1.0, 0.001)]
    """

    solves_ode: ClassVar[bool] = False
    needs_velocity: ClassVar[bool] = False
    name: str

    def phases(self, lr: float) -> Iterator[tuple["Objective", float, float]]:
        """Yield for each phase its objective, the fraction of the run it ends at, its largest lr.

        Args:
            lr: the optimizer's learning rate.
        """
        yield self, 1.0, lr


class MaximumLikelihood(Objective):
    owner: ClassVar[str] = "flowtrain.training.objectives:MaximumLikelihood"
    solves_ode: ClassVar[bool] = True
    name: Literal["maximum_likelihood"]


class FlowMatching(Objective):
    owner: ClassVar[str] = "flowtrain.training.objectives:FlowMatching"
    needs_velocity: ClassVar[bool] = True
    name: Literal["flow_matching"]
    coupling: Literal["independent", "optimal_transport"]
    path: Literal["linear", "variance_preserving"]
    times: Literal["uniform", "stratified", "logit_normal"]


class FlowMatchingThenLikelihood(FlowMatching):
    """Flow matching up to a fraction of the run, maximum likelihood from there on."""

    solves_ode: ClassVar[bool] = True
    name: Literal["flow_matching_then_likelihood"]  # type: ignore[assignment]
    switch: float = Field(gt=0, lt=1)
    likelihood_lr: Positive

    def phases(self, lr: float) -> Iterator[tuple[Objective, float, float]]:
        own = {key: getattr(self, key) for key in ("coupling", "path", "times")}
        yield FlowMatching(name="flow_matching", **own), self.switch, lr
        yield MaximumLikelihood(name="maximum_likelihood"), 1.0, self.likelihood_lr


class Custom(Objective):
    """An objective of the user's own: a class or function of a Python file, and its arguments."""

    name: Literal["custom"]
    target: ImportString
    arguments: dict[str, Any]

    def build(self, *positional: Any, **context: Any) -> Any:
        return build_own("objective", self.target, self.arguments)
