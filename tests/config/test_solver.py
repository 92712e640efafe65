"""The group `solver`: what each kind of method has, and what needs something beside it."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from torchdiffeq._impl.odeint import SOLVERS

from flowtrain.config.methods import METHODS
from flowtrain.config.schema import validate
from flowtrain.config.section import names, options
from flowtrain.config.solver import Adaptive, FixedStep, Implicit, NoSolver, Solver
from flowtrain.errors import ConfigError

KINDS = [
    Adaptive(name="dopri5", rtol=1e-5, atol=1e-6),
    FixedStep(name="rk4", step_size=0.1),
    Implicit(name="implicit_adams", step_size=0.1, rtol=1e-3, atol=1e-3),
    NoSolver(name="none"),
]


def test_methods_of_equal_steps_are_those_whose_stages_are_known() -> None:
    assert names(FixedStep) == (*METHODS, "explicit_adams")


def test_every_kind_is_known_to_solve_or_not_and_to_choose_its_steps_or_not() -> None:
    assert {type(solver) for solver in KINDS} == {*options(Solver)}
    assert [solver.solves for solver in KINDS] == [True, True, True, False]
    assert [solver.adaptive for solver in KINDS] == [True, False, False, False]


def test_every_method_is_torchdiffeq_s() -> None:
    methods = {name for section in options(Solver) for name in names(section)} - {"none"}
    assert methods <= SOLVERS.keys()


@pytest.mark.parametrize("key", ["adjoint_rtol", "adjoint_atol", "adjoint_seminorm"])
def test_a_setting_of_the_adjoint_needs_the_adjoint(
    compose: Callable[..., dict[str, Any]], key: str
) -> None:
    raw = compose("model=ffjord")
    raw["solver"][key] = True if key == "adjoint_seminorm" else 1e-3
    with pytest.raises(ConfigError) as caught:
        validate(raw)
    assert str(caught.value) == f"solver: {key} has no effect without adjoint=true"
    raw["solver"]["adjoint"] = True
    assert validate(raw)


@pytest.mark.parametrize("kind", [FixedStep, Implicit])
def test_equal_steps_have_no_norm_nor_a_seminorm(kind: type[Solver]) -> None:
    solver = next(each for each in KINDS if isinstance(each, kind))
    for key in ("norm", "max_steps", "adjoint_seminorm"):
        with pytest.raises(ValidationError, match="Extra inputs"):
            kind.model_validate({**solver.model_dump(), key: None})
