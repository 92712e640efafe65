"""The files of conf/ and the schema they are checked against."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowtrain.build import OPTIMIZERS
from flowtrain.config import FFJORD, Config, Section, validate
from flowtrain.data import DENSITIES
from flowtrain.errors import ConfigError
from flowtrain.flows import ELEMENTWISE, FLOWS
from flowtrain.flows.ode import ADAPTIVE, FIXED

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = {
    group.name: sorted(path.stem for path in group.glob("*.yaml"))
    for group in CONF.iterdir()
    if group.is_dir()
}
# What an option needs beside it to have an effect.
NEEDS = {
    "solver": ["model=ffjord"],
    "regularization": ["model=ffjord"],
    "objective": ["model=ffjord"],
}
ELEMENTWISE_MODEL = {"affine": "model=realnvp", "spline": "model=spline"}

Compose = Callable[..., dict[str, Any]]


def data_overrides(option: str) -> list[str]:
    return [f"data={option}", *(["data.path=points.csv"] if option == "table" else [])]


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group in OPTIONS for option in OPTIONS[group]]
)
def test_every_file_composes_and_validates(compose: Compose, group: str, option: str) -> None:
    overrides = [f"{group}={option}", *([] if option == "none" else NEEDS.get(group, []))]
    if group == "data":
        overrides = data_overrides(option)
    if (group, option) == ("pools", "split"):
        overrides = ["data=sklearn"]
    if group == "elementwise":
        overrides = [ELEMENTWISE_MODEL[option], f"{group}@model.{group}={option}"]
    config = validate(compose(*overrides))
    solves = isinstance(config.model, FFJORD) and config.objective.name != "flow_matching"
    assert solves == (config.solver.name != "none")


@pytest.mark.parametrize("data", OPTIONS["data"])
@pytest.mark.parametrize("model", OPTIONS["model"])
def test_every_model_goes_with_every_data_set(compose: Compose, model: str, data: str) -> None:
    config = validate(compose(f"model={model}", *data_overrides(data), "optimizer=adamw"))
    expected = "digits" if data == "sklearn" else data
    assert (config.model.name, config.data.name) == (model, expected)


@pytest.mark.parametrize("solver", OPTIONS["solver"])
def test_every_solver_can_be_the_evaluation_solver(compose: Compose, solver: str) -> None:
    model = "spline" if solver == "none" else "ffjord"
    config = validate(compose(f"model={model}", f"solver@evaluation.solver={solver}"))
    assert config.evaluation.solver.name == compose(f"solver={solver}")["solver"]["name"]


@pytest.mark.parametrize(
    ("group", "registered"),
    [
        ("data", [*DENSITIES, "table", "digits"]),
        ("model", FLOWS),
        ("elementwise", ELEMENTWISE),
        ("optimizer", OPTIMIZERS),
        ("solver", ["none", *ADAPTIVE, *FIXED]),
    ],
)
def test_every_registered_name_has_a_file_and_every_file_a_registered_name(
    group: str, registered: Iterable[str]
) -> None:
    files = [yaml.safe_load(path.read_text()) for path in (CONF / group).glob("*.yaml")]
    assert {file["name"] for file in files if "name" in file} == set(registered)


def leaves(node: yaml.MappingNode) -> Iterator[tuple[str, int]]:
    """Yield the settings of a YAML file, with the line on which each stands."""
    for key, value in node.value:
        if key.value in ("defaults", "name", "hydra"):
            continue
        if isinstance(value, yaml.MappingNode):
            yield from leaves(value)
        else:
            yield key.value, key.start_mark.line


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_value_carries_a_comment(path: Path) -> None:
    text = path.read_text()
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    lines = text.splitlines()
    assert [key for key, line in leaves(node) if " # " not in lines[line]] == []


def sections(section: type[Section] = Section) -> Iterator[type[Section]]:
    for subclass in section.__subclasses__():
        yield subclass
        yield from sections(subclass)


def test_the_schema_holds_no_default() -> None:
    optional = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not field.is_required()
    ]
    assert optional == []


BAD_VALUES: list[tuple[str, Any, str]] = [
    ("seed", -1, "it should be greater than or equal to 0"),
    ("seed", 1.5, "it should be a valid integer"),
    ("seed", True, "it should be a valid integer"),
    ("dtype", "float16", "it should be 'float32' or 'float64'"),
    ("optimizer.lr", 0, "it should be greater than 0"),
    ("optimizer.lr", -1e-3, "it should be greater than 0"),
    ("optimizer.lr", math.nan, "it should be a finite number"),
    ("optimizer.lr", math.inf, "it should be a finite number"),
    ("optimizer.lr", "fast", "it should be a valid number"),
    ("optimizer.lr", None, "it should be a valid number"),
    ("optimizer.betas", [0.9], "it should have at least 2 items, not 1"),
    ("scheduler.warmup", 1, "it should be less than 1"),
    ("scheduler.final", 2, "it should be less than or equal to 1"),
    ("trainer.max_steps", 0, "it should be greater than or equal to 1"),
    ("trainer.max_steps", 1e3, "it should be a valid integer"),
    ("trainer.max_seconds", 0, "it should be greater than 0"),
    ("trainer.batch_size", 0, "it should be greater than or equal to 1"),
    ("trainer.clip", -1, "it should be greater than or equal to 0"),
    ("trainer.ema", 1, "it should be less than 1"),
    ("trainer.figures", "yes", "it should be a valid boolean"),
    ("trainer.device", "gpu", r"it should match (auto|cpu|mps|cuda(:\d+)?)"),
    ("pools.train", 1, "it should be greater than or equal to 2"),
    ("evaluation.grid", 1, "it should be greater than or equal to 16"),
    ("pools", 3, "no group of settings"),
    ("evaluation.solver", "dopri5", "no group of settings; try solver@evaluation.solver=option"),
    ("resume", "", "it should have at least 1 character"),
    ("init_from", "", "it should have at least 1 character"),
    ("data.noise", 0, "it should be greater than 0"),
    ("data.shift", [1], "it should have at least 2 items, not 1"),
    ("data.shift", 1, "it should be a valid list"),
    ("data.name", "sun", "'checkerboard'"),
    ("model.name", "realnpv", "choose from 'realnvp', 'glow', 'spline', 'affine', 'ffjord'"),
    ("model.width", 0, "it should be greater than or equal to 1"),
    ("model.depth", 0, "it should be greater than or equal to 1"),
    ("model.activation", "relu", "it should be 'tanh', 'softplus', 'silu' or 'gelu'"),
    ("model.field", "mlp", "it should be 'concatsquash' or 'time_mlp'"),
    ("model.probes", 0, "it should be greater than or equal to 1"),
    ("model.noise", "cauchy", "it should be 'rademacher' or 'gaussian'"),
    ("model.divergence", "fast", "it should be 'auto', 'exact' or 'hutchinson'"),
    ("solver.name", "dopri6", "'adaptive_heun'"),
    ("solver.rtol", 0, "it should be greater than 0"),
    ("solver.max_steps", 0, "it should be greater than or equal to 1"),
    ("evaluation.solver.atol", -1, "it should be greater than 0"),
    ("regularization.kinetic", -1, "it should be greater than or equal to 0"),
]
BAD_REALNVP_VALUES: list[tuple[str, Any, str]] = [
    ("model.hidden", 0, "it should be greater than or equal to 1"),
    ("model.couplings", 0, "it should be greater than or equal to 1"),
    ("model.activation", "gleu", "it should be 'relu', 'silu' or 'tanh'"),
    ("model.elementwise.log_scale_bound", 0, "it should be greater than 0"),
    ("model.mixing", "no", "it should be 'alternate', 'random' or 'lu'"),
]


@pytest.fixture(scope="module")
def defaults(compose: Compose) -> dict[str, dict[str, Any]]:
    """Return the default config of each model."""
    return {model: compose(f"model={model}") for model in OPTIONS["model"]}


def changed(raw: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return a config with other values; `a__b` names the key a.b."""
    raw = copy.deepcopy(raw)
    for key, value in values.items():
        *parents, last = key.split("__")
        section = raw
        for parent in parents:
            section = section[parent]
        section[last] = value
    return raw


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "key", "value", "allowed"),
    [("ffjord", *case) for case in BAD_VALUES]
    + [("realnvp", *case) for case in BAD_REALNVP_VALUES],
)
def test_a_bad_value_is_refused_in_one_line(
    defaults: dict[str, dict[str, Any]], model: str, key: str, value: Any, allowed: str
) -> None:
    message = refusal(changed(defaults[model], **{key.replace(".", "__"): value}))
    assert message.startswith(f"{key}: {value!r} is ")
    assert allowed in message
    assert len(message.splitlines()) == 1


def test_a_bad_entry_of_a_list_is_named(defaults: dict[str, dict[str, Any]]) -> None:
    message = refusal(changed(defaults["realnvp"], optimizer__betas=[0.9, 1]))
    assert message == "optimizer.betas.1: 1 is refused: it should be less than 1"


def test_an_unknown_and_a_missing_key_are_named(defaults: dict[str, dict[str, Any]]) -> None:
    raw = changed(defaults["realnvp"], model__width=3)
    del raw["pools"]["test"]
    assert refusal(raw).splitlines() == [
        "pools.test: missing; it has no default",
        "model.width: unknown key",
    ]


@pytest.mark.parametrize("key", ["adjoint_rtol", "adjoint_atol", "adjoint_seminorm"])
def test_a_setting_of_the_adjoint_needs_the_adjoint(
    defaults: dict[str, dict[str, Any]], key: str
) -> None:
    value = True if key == "adjoint_seminorm" else 1e-3
    raw = changed(defaults["ffjord"], **{f"solver__{key}": value})
    assert refusal(raw) == f"solver: {key} has no effect without adjoint=true"
    assert validate(changed(raw, solver__adjoint=True))


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
    ("overrides", "fitting"),
    [
        (["model=realnvp", "elementwise@model.elementwise=spline"], "spline"),
        (["model=realnvp", "model.mixing=lu"], "glow"),
        (["model=glow", "model.mixing=random"], "realnvp"),
        (["model=spline", "elementwise@model.elementwise=affine"], "glow"),
    ],
)
def test_a_stack_is_called_by_its_name(
    compose: Compose, overrides: list[str], fitting: str
) -> None:
    assert refusal(compose(*overrides)).endswith(f"use model={fitting}")


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("solver=dopri5", "leave solver=none"),
        ("regularization=rnode", "leave regularization=none"),
    ],
)
def test_flow_matching_has_no_use_for_a_path(compose: Compose, override: str, allowed: str) -> None:
    message = refusal(compose("model=ffjord", "objective=flow_matching", override))
    assert "flow_matching" in message
    assert message.endswith(allowed)


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
        (["data=moons", "pools=split"], "pools: moons needs pools=drawn, not split"),
        (["data=sklearn", "pools=drawn"], "pools: digits needs pools=split, not drawn"),
        (
            ["data=sklearn", "model=ffjord", "trainer.animation=true"],
            "trainer.animation: digits has no plane to animate in; leave it false",
        ),
        (["data=table"], "data.path: None is refused: it should be a valid string"),
        (
            ["data=sklearn", "data.name=mnist"],
            "data.name: 'mnist' is unknown; choose from ",
        ),
        (["data=table", "data.path=a.csv", "data.columns=[]"], "data.columns: [] is refused"),
        (["data=table", "data.path=a.csv", "data.header=maybe"], "data.header: 'maybe' is refused"),
        (["data=sklearn", "pools.test=1"], "pools.test: 1 is refused: it should be"),
    ],
)
def test_tables_and_laws_have_their_own_pools(
    compose: Compose, overrides: list[str], refused: str
) -> None:
    assert refusal(compose(*overrides)).startswith(refused)


def test_a_table_is_found_from_any_folder(compose: Compose) -> None:
    config = validate(compose("data=table", "data.path=points.csv", "data.columns=[x,2]"))
    assert config.data.arguments() == {
        "path": str(Path.cwd() / "points.csv"), "columns": ["x", 2], "header": "auto"
    }  # fmt: skip


def test_all_problems_come_in_one_message(defaults: dict[str, dict[str, Any]]) -> None:
    problems = {"optimizer__lr": -1, "model__hidden": 0, "data__noise": "soft", "pools__extra": 1}
    lines = refusal(changed(defaults["realnvp"], **problems)).splitlines()
    assert {line.split(":")[0] for line in lines} == {
        "optimizer.lr",
        "model.hidden",
        "data.noise",
        "pools.extra",
    }


def test_a_config_comes_back_from_its_own_plain_containers(tiny: Callable[..., Config]) -> None:
    config = tiny("trainer.max_seconds=2.5", model="ffjord")
    assert validate(config.model_dump()) == config
