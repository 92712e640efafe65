"""The reference of the config: every option of every group, every key and its default."""

import re

import pytest

from docs.hooks.conf_files import Option, options_of
from docs.hooks.config_reference import OF_HYDRA, allowed, groups, is_section, reference
from flowtrain.config import CONF
from flowtrain.config.section import names, options

PAGE = reference()
ROWS = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.splitlines()]


def test_every_file_of_conf_has_a_row() -> None:
    told = {re.sub(r"`(?:\w+=)?(\w+)`", r"\1", row[0]) for row in ROWS if len(row) == 3}
    files = {path.stem for path in CONF.glob("*/*.yaml") if path.parent.name != OF_HYDRA}
    assert files <= told
    folders = {path.name for path in CONF.iterdir() if path.is_dir()} - {OF_HYDRA}
    assert folders == set(re.findall(r"^## `(\w+)`", PAGE, re.MULTILINE))


@pytest.mark.parametrize("group", groups())
def test_every_key_has_a_default_a_range_and_words(group: str) -> None:
    base = groups()[group]
    rows = {row[0].strip("`"): row for row in ROWS if len(row) == 4}
    for section in options(base) or [base]:
        for key, field in section.model_fields.items():
            if key == "name" or is_section(field.annotation):
                continue
            assert all(rows[f"{group}.{key}"]), f"{group}.{key}"


def test_a_section_whose_name_is_a_setting_shows_it() -> None:
    assert (
        "| `data.name` | `digits` | `digits`, `iris`, `wine`, `breast_cancer`, `diabetes`" in PAGE
    )
    assert "model.name" not in PAGE


def test_a_default_is_what_the_option_composes() -> None:
    assert "`1.0e-4` (dopri5, fehlberg2)" in PAGE  # the second takes it over from the first
    option = Option(CONF / "solver" / "rk4.yaml")
    assert option.settings["step_size"].value == "0.1"
    assert {*option.settings} == {"name", "step_size", "dtype", "adjoint"}


def test_a_default_that_steps_back_is_shown_as_it_is() -> None:
    option = Option(CONF / "trainer" / "default.yaml")
    assert option.settings["max_steps"].value == "4_200"
    assert "${" not in PAGE


def test_the_default_of_a_group_comes_first() -> None:
    assert options_of("model")[0].name == "realnvp"


def test_an_option_says_what_else_it_chooses() -> None:
    chosen = Option(CONF / "model" / "ffjord.yaml").chooses
    assert {"solver=dopri5", "solver@evaluation.solver=dopri5_tight"} <= {*chosen}
    assert Option(CONF / "launcher" / "joblib.yaml").chooses == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "`true`, `false`"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number ≥ 0 and < 1"),
        ({"const": True}, "`true`"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
         "list of 2, each: number"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 1}, "list, each: number"),
        ({"type": "string", "pattern": "^a|b$"}, "text like `a\\|b`"),
        ({"type": "object"}, "keys and values of your own"),
    ],
)  # fmt: skip
def test_a_range_is_told_in_words(schema: dict[str, object], words: str) -> None:
    assert allowed(schema) == words


def test_every_name_of_a_section_is_an_option_or_a_setting() -> None:
    for group, base in groups().items():
        offered = {option.name for option in options_of(group)}
        for section in options(base):
            assert {*names(section)} & offered or f"`{group}.name`" in PAGE
