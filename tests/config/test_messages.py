"""What a wrong value is told: where it is, what it is, what is allowed, in one line."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest

from flowtrain.config.schema import validate
from flowtrain.errors import ConfigError

Defaults = dict[str, dict[str, Any]]

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
    ("trainer.max_steps", 1e3, "write 1000"),
    ("trainer.max_steps", 1.5, "it should be a valid integer"),
    ("trainer.max_seconds", 0, "it should be greater than 0"),
    ("trainer.batch_size", 0, "it should be greater than or equal to 1"),
    ("trainer.clip", -1, "it should be greater than or equal to 0"),
    ("trainer.ema", 1, "it should be less than 1"),
    ("trainer.figures", "yes", "it should be a valid boolean"),
    ("trainer.max_seconds", "1m", "it should be a number of seconds, such as 60"),
    ("trainer.device", "gpu", "it should be auto, cpu, mps, cuda or, of several, cuda:0, cuda:1"),
    ("trainer.device", "gpu", "; did you mean cuda?"),
    ("trainer.device", "cuda:x", "it should be auto, cpu, mps, cuda or, of several, cuda:0, cuda"),
    ("splits.test", 0.2, "it should be a number of points; fractions are for the rows of a table"),
    ("splits.train", 1, "it should be greater than or equal to 2"),
    ("evaluation.grid", 1, "it should be greater than or equal to 16"),
    ("splits", 3, "no group of settings"),
    ("evaluation.solver", "dopri5", "no group of settings; try solver@evaluation.solver=option"),
    ("trust_code", 1, "it should be a valid boolean"),
    ("resume", "", "it should have at least 1 character"),
    ("init_from", "", "it should have at least 1 character"),
    ("data.noise", 0, "it should be greater than 0"),
    ("data.shift", [1], "it should have at least 2 items, not 1"),
    ("data.shift", 1, "it should be a valid list"),
    ("data.name", "sun", "'checkerboard'"),
    ("model.name", "realnpv", "choose from 'affine', 'realnvp', 'glow', 'spline', 'maf'"),
    ("model.width", 0, "it should be greater than or equal to 1"),
    ("model.depth", 0, "it should be greater than or equal to 1"),
    ("model.activation", "relu", "it should be 'tanh', 'softplus', 'silu' or 'gelu'"),
    ("model.field", 3, "it should be a valid string"),
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
    ("model.log_scale_bound", 0, "it should be greater than 0"),
    ("model.mixing", "no", "it should be 'alternate' or 'random'"),
]
BAD_SPLINE_VALUES: list[tuple[str, Any, str]] = [
    ("model.bins", 1, "it should be greater than or equal to 2"),
    ("model.bins", 257, "it should be less than or equal to 256"),
    ("model.bound", 0, "it should be greater than 0"),
    ("model.mixing", "no", "it should be 'alternate', 'random' or 'lu'"),
]
BAD_RK4_VALUES: list[tuple[str, Any, str]] = [
    ("evaluation.solver.step_size", 0, "it should be greater than or equal to 0.0001"),
    ("evaluation.solver.step_size", 1.5, "it should be less than or equal to 1"),
    ("evaluation.solver.dtype", "float16", "it should be 'float32' or 'float64'"),
]


@pytest.fixture(scope="module")
def defaults(compose: Callable[..., dict[str, Any]]) -> Defaults:
    """Return the default config of each model, and one that is evaluated by equal steps."""
    models = {name: compose(f"model={name}") for name in ("realnvp", "spline", "ffjord")}
    return {**models, "rk4": compose("model=ffjord", "solver@evaluation.solver=rk4")}


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
    + [("realnvp", *case) for case in BAD_REALNVP_VALUES]
    + [("spline", *case) for case in BAD_SPLINE_VALUES]
    + [("rk4", *case) for case in BAD_RK4_VALUES],
)
def test_a_bad_value_is_refused_in_one_line(
    defaults: Defaults, model: str, key: str, value: Any, allowed: str
) -> None:
    message = refusal(changed(defaults[model], **{key.replace(".", "__"): value}))
    assert message.startswith(f"{key}: {value!r} is ")
    assert allowed in message
    assert len(message.splitlines()) == 1


def test_a_bad_entry_of_a_list_is_named(defaults: Defaults) -> None:
    message = refusal(changed(defaults["realnvp"], optimizer__betas=[0.9, 1]))
    assert message == "optimizer.betas.1: 1 is refused: it should be less than 1"


def test_an_unknown_and_a_missing_key_are_named(defaults: Defaults) -> None:
    raw = changed(defaults["realnvp"], model__width=3)
    del raw["splits"]["test"]
    assert refusal(raw).splitlines() == [
        "splits.test: missing; it has no default",
        "model.width: unknown key",
    ]


def test_a_setting_of_another_model_is_unknown(defaults: Defaults) -> None:
    assert refusal(changed(defaults["realnvp"], model__bins=8)) == "model.bins: unknown key"
    assert refusal(changed(defaults["spline"], model__log_scale_bound=3.0)) == (
        "model.log_scale_bound: unknown key"
    )


def test_all_problems_come_in_one_message(defaults: Defaults) -> None:
    problems = {"optimizer__lr": -1, "model__hidden": 0, "data__noise": "soft", "splits__extra": 1}
    lines = refusal(changed(defaults["realnvp"], **problems)).splitlines()
    assert {line.split(":")[0] for line in lines} == {
        "optimizer.lr",
        "model.hidden",
        "data.noise",
        "splits.extra",
    }
