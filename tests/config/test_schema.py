"""The whole config: the rules between its groups, and what a run may not ask for."""

from collections.abc import Callable
from typing import Any

import pytest

from flowtrain.config.model import BASES
from flowtrain.config.schema import Config, validate
from flowtrain.errors import ConfigError

Compose = Callable[..., dict[str, Any]]


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(raw)
    return str(caught.value)


def test_a_config_comes_back_from_its_own_plain_containers(tiny: Callable[..., Config]) -> None:
    config = tiny("trainer.max_seconds=2.5", model="ffjord")
    assert validate(config.model_dump()) == config


def test_a_continuous_flow_needs_its_solvers(compose: Compose) -> None:
    training = refusal(compose("model=ffjord", "solver=none"))
    assert training == "solver: ffjord needs a solver; try solver=dopri5"
    evaluation = refusal(compose("model=ffjord", "solver@evaluation.solver=none"))
    assert evaluation.startswith("evaluation.solver: ffjord needs a solver; try solver@evaluation")


@pytest.mark.parametrize(
    "override",
    [
        "solver=dopri5",
        "solver@evaluation.solver=rk4",
        "regularization=kinetic",
        "regularization=rnode",
        "trainer.animation=true",
    ],
)
def test_a_setting_without_effect_on_the_model_is_refused(compose: Compose, override: str) -> None:
    message = refusal(compose("model=realnvp", override))
    assert "realnvp" in message
    assert "leave" in message


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("solver=dopri5", "leave solver=none"),
        ("regularization=rnode", "leave regularization=none"),
    ],
)
@pytest.mark.parametrize(
    "objective", [["flow_matching"], ["custom", "objective.target=mine:Loss"]], ids=str
)
def test_an_objective_that_solves_nothing_has_no_use_for_a_path(
    compose: Compose, objective: list[str], override: str, allowed: str
) -> None:
    name, *more = objective
    message = refusal(compose("model=ffjord", f"objective={name}", *more, override))
    assert name in message
    assert message.endswith(allowed)


def test_variational_inference_needs_a_density_and_penalises_no_path(compose: Compose) -> None:
    assert refusal(compose("data=sklearn", "data.name=iris", "objective=reverse_kl")) == (
        "objective: reverse_kl needs data whose density is known, iris has none; "
        "leave objective=maximum_likelihood"
    )
    message = refusal(compose("model=ffjord", "objective=reverse_kl", "regularization=rnode"))
    assert message.startswith("regularization: reverse_kl integrates no path")
    assert validate(compose("model=ffjord", "objective=reverse_kl")).solver.solves


@pytest.mark.parametrize("base", [base for base in BASES if base != "normal"])
@pytest.mark.parametrize("objective", ["flow_matching", "flow_matching_then_likelihood"])
def test_velocities_are_matched_from_a_fixed_base(
    compose: Compose, base: str, objective: str
) -> None:
    assert refusal(compose("model=ffjord", f"objective={objective}", f"model.base={base}")) == (
        f"model.base: the paths of {objective} begin at a fixed base, {base} is learned; leave "
        "model.base=normal, or choose objective=maximum_likelihood"
    )


@pytest.mark.parametrize("objective", ["flow_matching", "flow_matching_then_likelihood"])
@pytest.mark.parametrize("model", ["realnvp", "affine"])
def test_only_a_continuous_flow_has_a_velocity_to_match(
    compose: Compose, model: str, objective: str
) -> None:
    message = refusal(
        compose(f"model={model}", f"objective={objective}", "solver=none", "regularization=none")
    )
    assert (
        message
        == f"objective: {model} has no velocity to match; leave objective=maximum_likelihood"
    )


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["data=moons", "splits=random"], "splits: moons needs splits=sampled, not random"),
        (["data=sklearn", "splits=sampled"], "splits: digits needs splits=random, not sampled"),
        (
            ["data=sklearn", "model=ffjord", "trainer.animation=true"],
            "trainer.animation: digits has no plane to animate in; leave it false",
        ),
    ],
)
def test_tables_and_densities_have_their_own_splits(
    compose: Compose, overrides: list[str], refused: str
) -> None:
    assert refusal(compose(*overrides)) == refused


def test_code_is_trusted_where_a_run_is_resumed_and_nowhere_else(compose: Compose) -> None:
    assert refusal(compose("trust_code=true")) == (
        "trust_code: only resume runs code that a folder names; leave it false"
    )
    assert validate(compose("trust_code=true", "resume=somewhere")).trust_code


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=realnvp"], None),
        (["model=ffjord"], "dopri5"),  # as evaluation's, with other tolerances
        (["model=ffjord", "solver=bosh3"], "bosh3"),
        (["model=ffjord", "solver=dopri5_tight"], None),
        (["model=ffjord", "objective=flow_matching"], None),
    ],
)
def test_the_training_solver_is_named_where_it_may_read_another_likelihood(
    compose: Compose, overrides: list[str], expected: str | None
) -> None:
    solver = validate(compose(*overrides)).training_solver
    assert (solver and solver.name) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=ffjord"], {}),
        (["model=ffjord", "model.field=time_mlp"], {}),
        (["model=ffjord", "model.field=mine:Field"], {"model.field": "mine:Field"}),
        (["data=custom", "data.target=my.file:Square"], {"data.target": "my.file:Square"}),
        (
            [
                "data=custom", "data.target=a:A", "model=ffjord", "model.field=b:B",
                "objective=custom", "objective.target=c:C",
            ],
            {"data.target": "a:A", "model.field": "b:B", "objective.target": "c:C"},
        ),
    ],
)  # fmt: skip
def test_a_config_knows_the_code_of_its_user_s_own(
    compose: Compose, overrides: list[str], expected: dict[str, str]
) -> None:
    assert validate(compose(*overrides)).own_code == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model=normflows"],
            "data.condition: this flow of normflows learns no p(x | c); try model.flow=nsf",
        ),
        (
            ["model=ffjord", "trainer.animation=true"],
            "trainer.animation: it shows one p(x), not p(x | c); leave it false",
        ),
        (
            ["data.condition=arc"],
            "data: condition=arc cannot be given; choose from component, rotation, noise, scale",
        ),
        (["data=pinwheel", "data.condition=arms"], "choose from component, rotation, radial_std"),
        (["data.condition=rotation"], "condition=rotation needs interval"),
        (["data.condition=noise"], "condition=noise needs interval, two numbers"),
        (["data.interval=[0,1]"], "interval belongs to a condition that is a number"),
        (
            ["data=circles", "data.condition=factor", "data.interval=[0.5,1]"],
            "data: interval: factor: 1.0 is refused: it should be less than 1",
        ),
        (["data.condition=noise", "data.interval=[0,1]"], "noise: 0.0 is refused"),
        (
            ["data=custom", "data.target=a:A", "+data.arguments.side=1", "data.condition=side",
             "data.interval=[0,1]"],
            "data: arguments.side is drawn from interval; leave it out",
        ),
        (
            ["model=ffjord", "objective=flow_matching", "objective.coupling=optimal_transport",
             "objective.targets=sample", "data.condition=rotation", "data.interval=[0,1]"],
            "objective.coupling: optimal_transport pairs points of one condition",
        ),
    ],
)  # fmt: skip
def test_a_condition_that_nothing_can_be_made_of_is_refused(
    compose: Compose, overrides: list[str], message: str
) -> None:
    assert message in refusal(compose("data.condition=component", *overrides))
