"""The groups `data` and `splits`: what is refused before anything is read or sampled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.config.data import Data
from flowtrain.config.schema import validate
from flowtrain.config.section import names, options
from flowtrain.config.splits import Splits
from flowtrain.data.sklearn_sets import SETS
from flowtrain.errors import ConfigError

Compose = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["data=table"], "data.path: missing; it has no default"),
        (
            ["data=sklearn", "data.name=mnist"],
            "data.name: 'mnist' is unknown; choose from 'digits', 'iris', 'wine', ",
        ),
        (["data=moons", "data.name=moon"], "data.name: 'moon' is unknown; choose from 'moons', '"),
        (["data=table", "data.path=a.csv", "data.columns=[]"], "data.columns: [] is refused"),
        (["data=table", "data.path=a.csv", "data.header=maybe"], "data.header: 'maybe' is refused"),
        (["data=sklearn", "splits.test=1"], "splits.test: 1 is refused: it should be"),
        (["data=custom"], "data.target: missing; it has no default"),
        (["data=rings", "data.radii=[]"], "data.radii: [] is refused: it should have at least 1"),
        (["data=circles", "data.factor=1"], "data.factor: 1 is refused: it should be less than 1"),
        (["data=checkerboard", "data.squares=1"], "data.squares: 1 is refused: it should be"),
        (["data=two_spirals", "data.jitter=-1"], "data.jitter: -1 is refused: it should be"),
    ],
)
def test_data_that_cannot_be_is_refused_in_one_line(
    compose: Compose, overrides: list[str], refused: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose(*overrides))
    assert str(caught.value).startswith(refused)
    assert len(str(caught.value).splitlines()) == 1


def test_a_table_is_found_from_any_folder(compose: Compose) -> None:
    config = validate(compose("data=table", "data.path=points.csv", "data.columns=[x,2]"))
    assert config.data.settings() == {
        "path": str(Path.cwd() / "points.csv"), "columns": ["x", 2], "condition": None,
        "categorical": None, "header": "auto", "missing": "refuse",
    }  # fmt: skip
    home = validate(compose("data=table", "data.path='~/points.csv'"))
    assert home.data.settings()["path"] == str(Path.home() / "points.csv")


def test_every_data_set_names_the_splits_that_it_needs() -> None:
    known = {name for section in options(Splits) for name in names(section)}
    assert {getattr(section, "splits") for section in options(Data)} == known  # noqa: B009


def test_scikit_learn_s_sets_are_selected_by_their_names(compose: Compose) -> None:
    for name in SETS:
        data = validate(compose("data=sklearn", f"data.name={name}")).data
        assert (data.name, data.settings()) == (name, {"name": name, "condition": None})
