"""Sections, groups and marks: what the schema is made of, and that it stays free of torch."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError

from flowtrain.config.data import Data, Sklearn
from flowtrain.config.model import FFJORD, FIELDS, Model
from flowtrain.config.objective import FlowMatchingThenLikelihood, Objective
from flowtrain.config.optimizer import Optimizer
from flowtrain.config.schema import Config
from flowtrain.config.section import (
    Mark,
    OneOf,
    Section,
    dotted,
    imported,
    marked,
    names,
    options,
)
from flowtrain.config.solver import Adaptive, Solver
from flowtrain.config.splits import Splits

GROUPS = (Data, Splits, Model, Objective, Optimizer, Solver)
# The one of two phases is never built itself: each phase is a section of its own.
OWNED = [
    section
    for group in GROUPS
    for section in options(group)
    if section.owner and section is not FlowMatchingThenLikelihood
]


class Shape(Section):
    name: str


class Round(Shape):
    """The base of others: no name selects it."""

    radius: float


class Circle(Round):
    owner = "builtins:dict"
    name: Literal["circle", "disc"]


class Square(Shape):
    name: Literal["square"]
    side: Annotated[float, Mark.RESUMABLE]


class Drawing(Section):
    shape: Annotated[Shape, OneOf()]
    title: Annotated[str, Mark.RESUMABLE, Mark.INCIDENTAL]


def test_the_options_of_a_group_are_its_subclasses_that_a_name_selects() -> None:
    assert options(Shape) == [Circle, Square]
    assert [names(section) for section in (Shape, Round, Circle, Square)] == [
        (), (), ("circle", "disc"), ("square",),
    ]  # fmt: skip


def test_a_name_selects_the_section_of_a_group() -> None:
    drawn = Drawing.model_validate({"shape": {"name": "disc", "radius": 1.0}, "title": "x"})
    assert isinstance(drawn.shape, Circle)
    with pytest.raises(ValidationError, match="'circle', 'disc', 'square'"):
        Drawing.model_validate({"shape": {"name": "line"}, "title": "x"})


def test_a_mark_is_found_at_any_depth() -> None:
    assert {*marked(Drawing, Mark.RESUMABLE)} == {"title", "shape.side"}
    assert {*marked(Drawing, Mark.INCIDENTAL)} == {"title"}
    assert {*marked(Drawing, Mark.SHAPELESS)} == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"radius": "1"}, {"radius": float("nan")}, {"radius": float("inf")}, {}, {"radius": True},
        {"radius": 1.0, "side": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_section_converts_nothing_and_takes_no_other_key(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Circle.model_validate({"name": "circle", **settings})


def test_a_section_is_frozen_and_builds_its_owner_from_all_but_its_name() -> None:
    circle = Circle(name="circle", radius=2.0)
    with pytest.raises(ValidationError, match="frozen"):
        circle.radius = 3.0
    assert circle.settings() == {"radius": 2.0}
    assert circle.build([("a", 0)], more=1) == {"a": 0, "radius": 2.0, "more": 1}


def test_dotted_keys_are_flat_and_lists_stay_whole() -> None:
    assert dotted({"a": {"b": {"c": [1, {"d": 2}]}, "e": None}, "f": {}}) == {
        "a.b.c": [1, {"d": 2}], "a.e": None,
    }  # fmt: skip


# --- what the sections of the config build ------------------------------------------------------


# What build.py and training/schedule.py add to the settings: positions, and names.
CONTEXT: dict[type[Section], tuple[int, set[str]]] = {
    Data: (0, set()),
    Splits: (1, {"seeds", "device", "dtype"}),
    Model: (1, {"generator"}),
    Objective: (0, set()),
    Optimizer: (1, set()),
}
# What build.py fits to the rows or adds: no owner knows them.
FITTED = {"whitening", "dequantize", "condition", "interval", "base", "components"}


@pytest.mark.parametrize("section", OWNED, ids=lambda section: section.__name__)
def test_the_owner_of_a_section_accepts_its_settings_and_needs_no_more(
    section: type[Section],
) -> None:
    (group,) = (each for each in CONTEXT if issubclass(section, each))
    positions, context = CONTEXT[group]
    if getattr(section, "continuous", False):
        context = {*context, "solver"}
    if getattr(section, "needs_density", False):
        context = {*context, "density"}
    if getattr(section, "needs_teacher", False):
        context = {*context, "student"}
    settings = {*section.model_fields} - FITTED - ({"name"} if section is not Sklearn else set())
    owner = imported(section.owner)
    inspect.signature(owner).bind(*range(positions), **dict.fromkeys(settings | context))


def test_every_option_has_an_owner_or_is_built_otherwise() -> None:
    without = {
        section.__name__
        for group in GROUPS
        for section in options(group)
        if not section.owner and not issubclass(section, Solver)
    }
    assert without == {"Custom", "Unnormalized"}, (
        "a piece of the user's own is imported by own_code alone"
    )


def test_every_field_of_a_continuous_flow_can_be_imported() -> None:
    for target in FIELDS.values():
        assert {"width", "depth", "activation"} <= inspect.signature(
            imported(target)
        ).parameters.keys()
    assert "field" in FFJORD.model_fields


# --- what the rest of the program assumes of a field --------------------------------------------

LOGGER = {
    "logger", "logger.name", "logger.project", "logger.entity", "logger.group", "logger.mode",
    "logger.experiment", "logger.tracking_uri",
}  # fmt: skip
RESUMABLE = {
    "trainer.device", "trainer.threads", "trainer.max_steps", "trainer.max_seconds",
    "trainer.patience", "trainer.max_failures", "trainer.log_every", "trainer.evaluate_every",
    "trainer.figures", "trainer.draw_every", "trainer.animation", "evaluation.grid",
    "evaluation.batch_size", "trainer.compile", "trainer.capture", "data.path", *LOGGER,
}  # fmt: skip
INCIDENTAL = {
    "seed", "resume", "trust_code", "trainer.device", "trainer.threads", "trainer.log_every",
    "trainer.figures", "trainer.draw_every", "trainer.animation", "evaluation.batch_size",
    "trainer.compile", "trainer.capture", *LOGGER,
}  # fmt: skip
SHAPELESS = {"model.divergence", "model.probes", "model.noise"}


@pytest.mark.parametrize(
    ("mark", "keys"),
    [(Mark.RESUMABLE, RESUMABLE), (Mark.INCIDENTAL, INCIDENTAL), (Mark.SHAPELESS, SHAPELESS)],
)
def test_the_marks_cover_these_keys_alone(mark: Mark, keys: set[str]) -> None:
    assert {*marked(Config, mark)} == keys


def own_sections(section: type[Section] = Section) -> list[type[Section]]:
    """Return every section of the package."""
    below = [each for each in section.__subclasses__() if each.__module__.startswith("flowtrain.")]
    return below + [each for section in below for each in own_sections(section)]


def test_the_schema_holds_no_default_but_those_of_solvers_and_conditions() -> None:
    optional = {
        section.__name__
        for section in own_sections()
        for key, field in section.model_fields.items()
        if not field.is_required() and key not in ("condition", "interval")
    }
    assert optional == {"Adaptive", "FixedStep", "Implicit"}
    required = {key for key, field in Adaptive.model_fields.items() if field.is_required()}
    assert required == {"name", "rtol", "atol"}


# --- what waits for torch -----------------------------------------------------------------------


def unbounded(schema: Any, path: str = "") -> Iterator[str]:
    """Yield where a JSON schema takes any whole number, however large."""
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and not {"maximum", "exclusiveMaximum"} & {*schema}:
            yield path
        for key, inside in schema.items():
            yield from unbounded(inside, f"{path}/{key}")
    elif isinstance(schema, list):
        for inside in schema:
            yield from unbounded(inside, path)


def test_every_whole_number_has_a_bound_but_for_positions_which_the_table_bounds() -> None:
    found = [*unbounded(Config.model_json_schema())]
    assert {path.split("/")[-4] for path in found} == {"columns", "condition", "categorical"}
    assert all(path.startswith("/$defs/Table/properties/") for path in found)


HEAVY = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "hydra")


@pytest.fixture
def heavy_modules_of(tmp_path: Path) -> Callable[[str], set[str]]:
    """Return a function that runs code in a new process and tells the heavy modules it loaded."""

    def run(code: str) -> set[str]:
        told = f"{code}\nimport sys; print(*({{*{HEAVY}}} & {{*sys.modules}}))"
        done = subprocess.run(
            [sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return {*done.stdout.split()}

    return run


def test_importing_the_schema_imports_no_torch(
    heavy_modules_of: Callable[[str], set[str]],
) -> None:
    assert heavy_modules_of("import flowtrain.config.schema") == set()


def test_a_config_is_validated_without_torch(
    heavy_modules_of: Callable[[str], set[str]], tiny: Callable[..., Config]
) -> None:
    raw = tiny(model="ffjord").model_dump()
    code = f"from flowtrain.config.schema import validate\nvalidate({raw!r}).training_solver"
    assert heavy_modules_of(code) == set()
