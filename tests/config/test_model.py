"""The group `model`: the settings of a stack, and the fields of a continuous flow."""

from collections.abc import Callable
from typing import Any

import pytest

from flowtrain.config.model import FIELDS
from flowtrain.config.schema import validate
from flowtrain.errors import ConfigError

Compose = Callable[..., dict[str, Any]]


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "mixings"),
    [
        ("realnvp", {"alternate", "random"}),
        ("glow", set()),  # always lu
        ("spline", {"alternate", "random", "lu"}),
    ],
)
def test_a_stack_mixes_in_the_ways_that_bear_its_name(
    compose: Compose, model: str, mixings: set[str]
) -> None:
    raw = compose(f"model={model}")
    for mixing in ("alternate", "random", "lu"):
        raw["model"]["mixing"] = mixing
        if mixing in mixings:
            assert validate(raw).model.settings()["mixing"] == mixing
        else:
            assert refusal(raw).startswith("model.mixing: ")


@pytest.mark.parametrize("field", [*FIELDS, "mine:Field", "my.package.file:_Field2"])
def test_a_field_is_the_package_s_or_the_user_s_own(compose: Compose, field: str) -> None:
    raw = compose("model=ffjord")
    raw["model"]["field"] = field
    assert validate(raw).model.settings()["field"] == field


@pytest.mark.parametrize(
    "field", ["mlp", "", "mine:", ":Field", "mine:Field()", "my file:A", "a:b.c"]
)
def test_an_unknown_field_is_refused_in_one_line(compose: Compose, field: str) -> None:
    raw = compose("model=ffjord")
    raw["model"]["field"] = field
    assert refusal(raw) == (
        f"model.field: {field!r} is unknown; choose from concatsquash, fourier, time_mlp, "
        "or name a class of your own as module:Class"
    )


def test_components_belong_to_a_mixture(compose: Compose) -> None:
    raw = compose("model=spline", "model.base=mixture", "model.components=3")
    assert validate(raw).model.components == 3
    raw["model"]["base"] = "student_t"
    assert refusal(raw) == "model: components has no effect with base=student_t; leave it null"


def test_waves_belong_to_the_field_that_has_them(compose: Compose) -> None:
    raw = compose("model=ffjord", "model.field=fourier")
    settings = validate(raw).model.settings()
    assert (settings["features"], settings["scale"]) == (32, None)
    raw["model"] |= {"features": 8, "scale": 1.5}
    settings = validate(raw).model.settings()
    assert (settings["features"], settings["scale"]) == (8, 1.5)
    raw["model"] |= {"field": "concatsquash", "features": None}
    message = "model: scale has no effect with field=concatsquash; leave it null"
    assert refusal(raw) == message


@pytest.mark.parametrize("name", ["zuko", "normflows"])
def test_a_library_that_is_missing_is_told_with_what_installs_it(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("flowtrain.config.section.find_spec", lambda package: None)
    peer = validate(compose(f"model={name}")).model
    with pytest.raises(
        ConfigError, match=rf"^model={name} is an extra: pip install 'flowtrain\[zoo\]'"
    ):
        peer.build()
