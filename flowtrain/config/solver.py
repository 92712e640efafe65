"""The groups `solver` and `evaluation.solver`: how an ODE is solved.

What a Python caller seldom sets has a default here; the command line's defaults stand in conf/.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from flowtrain.config.section import Count, Dtype, Positive, Section


class Solver(Section):
    """The base of the group: a method of torchdiffeq by its name, or none.

    >>> Adaptive(name="dopri5", rtol=1e-6, atol=1e-6).adaptive
    True
    """

    name: str

    @property
    def solves(self) -> bool:
        """Whether it solves anything."""
        return True

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its steps by its tolerances."""
        return False

    @property
    def plain(self) -> bool:
        """Whether its steps are equal, with nothing to look at or to keep between them."""
        return False

    @property
    def kept(self) -> int:
        """How many evaluations of a field a backward pass through a solve holds at least."""
        adjoint, step_size = getattr(self, "adjoint", False), getattr(self, "step_size", 1.0)
        return 1 if adjoint else math.ceil(1 / step_size)


class NoSolver(Solver):
    """No solver: a discrete flow has no ODE, and flow matching solves none in training.

    >>> NoSolver(name="none").solves
    False
    """

    name: Literal["none"]

    @property
    def solves(self) -> bool:
        return False


class Adaptive(Solver):
    """A solver that chooses its steps by its tolerances.

    Attributes:
        rtol: relative tolerance.
        atol: absolute tolerance, in whitened coordinates.
        norm: what the tolerances hold for: "rms", the batch on average, or "max", every row, so
            that no point is solved worse for those beside it.
        max_steps: a solve that needs more is given up.
        dtype: of the state while it is solved; the model's own if None.
        adjoint: backpropagate by a second ODE, in memory that does not grow with the
            evaluations, instead of through the solver's own steps. Its failures are told as
            `SolverError`s where the backward pass runs inside `solver_errors()`.
        adjoint_rtol: of the adjoint; None is rtol.
        adjoint_atol: of the adjoint; None is atol.
        adjoint_seminorm: keep the parameters' gradients out of the adjoint's error norm, which
            saves evaluations (arXiv 2009.09457); None is True.

    >>> solver = Adaptive(name="dopri5", rtol=1e-5, atol=1e-5)
    >>> solver.norm, solver.max_steps, solver.adaptive
    ('rms', 500, True)
    """

    name: Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"]
    rtol: Positive
    atol: Positive
    norm: Literal["rms", "max"] = "rms"
    max_steps: Count = 500
    dtype: Dtype | None = None
    adjoint: bool = False
    adjoint_rtol: Positive | None = None
    adjoint_atol: Positive | None = None
    adjoint_seminorm: bool | None = None

    @property
    def adaptive(self) -> bool:
        return True

    @model_validator(mode="after")
    def _adjoint_settings_need_an_adjoint(self) -> Self:
        if not self.adjoint:
            for key in ("adjoint_rtol", "adjoint_atol", "adjoint_seminorm"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} has no effect without adjoint=true")
        return self


class FixedStep(Solver):
    """A solver that takes equal steps, blind to its error.

    Attributes:
        step_size: at most; the unit of time is divided into equal steps.
        dtype: of the state while it is solved; the model's own if None.
        adjoint: as `Adaptive` has it.

    >>> solver = FixedStep(name="rk4", step_size=0.05)
    >>> solver.adaptive, solver.adjoint
    (False, False)
    """

    name: Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams"]
    step_size: float = Field(ge=1e-4, le=1)
    dtype: Dtype | None = None
    adjoint: bool = False

    @property
    def plain(self) -> bool:
        return self.name != "explicit_adams" and not self.adjoint


class Implicit(Solver):
    """A fixed-step solver that iterates each step until it meets its tolerances.

    Attributes:
        step_size: at most; the unit of time is divided into equal steps.
        rtol: relative tolerance of the iteration.
        atol: absolute tolerance of the iteration, in whitened coordinates.
        dtype: of the state while it is solved; the model's own if None.
        adjoint: as `Adaptive` has it.

    >>> solver = Implicit(name="implicit_adams", step_size=0.05, rtol=1e-5, atol=1e-5)
    >>> solver.adaptive  # its steps are fixed all the same
    False
    """

    name: Literal["implicit_adams"]
    step_size: float = Field(ge=1e-4, le=1)
    rtol: Positive
    atol: Positive
    dtype: Dtype | None = None
    adjoint: bool = False
