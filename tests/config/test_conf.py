"""The files of conf/: every one composes, is known to the schema, and says what its values mean."""

from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowtrain.config import CONF
from flowtrain.config.data import Data
from flowtrain.config.evaluation import Evaluation
from flowtrain.config.logger import Logger
from flowtrain.config.model import Model
from flowtrain.config.objective import Objective
from flowtrain.config.optimizer import Optimizer
from flowtrain.config.regularization import Regularization
from flowtrain.config.scheduler import Scheduler
from flowtrain.config.schema import Config, validate
from flowtrain.config.section import Section, dotted, names, options
from flowtrain.config.solver import Solver
from flowtrain.config.splits import Splits
from flowtrain.config.trainer import Trainer

GROUPS: dict[str, type[Section]] = {
    "data": Data, "splits": Splits, "model": Model, "objective": Objective, "solver": Solver,
    "regularization": Regularization, "optimizer": Optimizer, "scheduler": Scheduler,
    "trainer": Trainer, "evaluation": Evaluation, "logger": Logger,
}  # fmt: skip
FILES = {
    group.name: sorted(path.stem for path in group.glob("*.yaml"))
    for group in CONF.iterdir()
    if group.is_dir()
}
PLUGINS = {"joblib": "hydra-joblib-launcher", "slurm": "hydra-submitit-launcher"}
# What an option needs beside it: a continuous flow to have an effect, a value without a default.
NEEDS = {
    "solver": ["model=ffjord"],
    "regularization": ["model=ffjord"],
    "objective": ["model=ffjord"],
}
TARGET = [
    "objective=reverse_kl", "data.target=mine:log_density", "data.dim=2", "data.window=[-5,5]",
]  # fmt: skip
REQUIRED = {
    ("data", "table"): ["data.path=points.csv"],
    ("data", "custom"): ["data.target=mine:Mine"],
    ("data", "unnormalized"): TARGET,
    ("splits", "none"): ["data=unnormalized", *TARGET],
    ("objective", "custom"): ["objective.target=mine:Loss"],
    ("objective", "reflow"): ["objective.teacher=outputs/run"],
    ("splits", "random"): ["data=sklearn"],
}

Compose = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", name="compose")
def fixture_compose_once(compose: Compose) -> Compose:
    """Return the function that composes, which does so once for each choice: it takes 0.1 s."""
    return cache(compose)


def choose(group: str, option: str) -> list[str]:
    """Return the overrides that choose an option, and give it what it cannot be without."""
    overrides = [f"{group}={option}", *REQUIRED.get((group, option), [])]
    return [*NEEDS.get(group, []), *overrides] if option != "none" else overrides


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in FILES for option in FILES[group] if not group.endswith("_on")],
)
def test_every_file_composes_and_validates(compose: Compose, group: str, option: str) -> None:
    if group == "launcher" and option in PLUGINS:
        try:
            version(PLUGINS[option])
        except PackageNotFoundError:
            pytest.skip(f"{PLUGINS[option]} is not installed")
    config = validate(compose(*choose(group, option)))
    solves = config.model.continuous and config.objective.solves_ode
    assert solves == config.solver.solves
    assert config.model.continuous == config.evaluation.solver.solves


@pytest.mark.parametrize(
    "path", sorted((CONF / "experiment_on").glob("*.yaml")), ids=lambda path: path.stem
)
def test_what_a_recipe_needs_more_on_one_density_is_found_by_both_names(
    compose: Compose, path: Path
) -> None:
    experiment, _, data = path.stem.partition("_")
    chosen = dotted(compose(f"experiment={experiment}", f"data={data}"))
    more = dotted(yaml.safe_load(path.read_text()))
    plain = {key: value for key, value in more.items() if not str(value).startswith("${")}
    assert plain
    assert {key: chosen[key] for key in plain} == plain
    elsewhere = dotted(compose(f"experiment={experiment}", "data=moons"))
    assert all(elsewhere[key] != value for key, value in more.items())


@pytest.mark.parametrize("model", FILES["model"])
def test_every_model_has_what_it_needs_on_a_table(compose: Compose, model: str) -> None:
    more = dotted(yaml.safe_load((CONF / "model_on" / f"{model}_random.yaml").read_text()))
    for table in ("data=sklearn", "data=table"):
        chosen = dotted(compose(f"model={model}", table, *REQUIRED.get(("data", table[5:]), [])))
        assert {key: chosen[key] for key in more} == more
        assert chosen["trainer.max_steps"] == "auto"
        assert chosen["optimizer.weight_decay"] == 1.0
    planar = dotted(compose(f"model={model}", "data=moons"))
    assert planar["model.whitening"] == "columns"
    assert "auto" not in {planar["trainer.max_steps"], planar.get("model.hidden")}


def test_what_a_user_says_of_a_table_wins(compose: Compose) -> None:
    said = {
        "model.hidden": 7, "model.whitening": "columns", "trainer.max_steps": 20,
        "optimizer.name": "adam", "optimizer.lr": 5e-3, "trainer.patience": None,
    }  # fmt: skip
    chosen = dotted(
        compose(
            "data=sklearn", "model=spline", "model.hidden=7", "model.whitening=columns",
            "trainer=debug", "optimizer=adam",
        )
    )  # fmt: skip
    assert {key: chosen[key] for key in said} == said


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group in GROUPS for option in FILES[group]]
)
def test_every_option_validates_alone_and_states_every_setting(
    compose: Compose, group: str, option: str
) -> None:
    settings = compose(*choose(group, option))[group]
    sections = options(GROUPS[group]) or [GROUPS[group]]
    (section,) = (each for each in sections if settings.get("name", "") in (names(each) or ("",)))
    assert section.model_validate(settings).model_dump().keys() == settings.keys()


@pytest.mark.parametrize("group", [group for group in GROUPS if options(GROUPS[group])])
def test_every_section_has_a_file_and_every_file_a_section(group: str) -> None:
    files = [yaml.safe_load(path.read_text()) for path in (CONF / group).glob("*.yaml")]
    named = {file["name"] for file in files if "name" in file}
    sections = options(GROUPS[group])
    assert all(named & {*names(section)} for section in sections)
    assert named <= {name for section in sections for name in names(section)}


def test_every_group_of_the_config_has_a_folder() -> None:
    groups = {key for key, field in Config.model_fields.items() if is_section(field.annotation)}
    assert groups == GROUPS.keys()
    others = {"experiment", "experiment_on", "launcher", "model_on", "sweep"}
    assert {*FILES} == {*groups, *others}


def is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


@pytest.mark.parametrize(
    ("model", "data"),
    [  # each at least once; to compose all of them takes minutes
        pytest.param(model, data, marks=[] if brief else pytest.mark.slow)
        for model in FILES["model"]
        for data in FILES["data"]
        for brief in [model == "ffjord" or data in ("moons", "table")]
    ],
)
def test_every_model_goes_with_every_data_set(compose: Compose, model: str, data: str) -> None:
    config = validate(compose(f"model={model}", *choose("data", data), "optimizer=adamw"))
    expected = "digits" if data == "sklearn" else data
    assert (config.model.name, config.data.name) == (model, expected)


@pytest.mark.parametrize("solver", FILES["solver"])
def test_every_solver_can_be_the_evaluation_solver(compose: Compose, solver: str) -> None:
    model = "spline" if solver == "none" else "ffjord"
    config = validate(compose(f"model={model}", f"solver@evaluation.solver={solver}"))
    assert config.evaluation.solver.name == compose(f"solver={solver}")["solver"]["name"]


def leaves(node: yaml.MappingNode) -> Iterator[tuple[str, int]]:
    """Yield the settings of a YAML file, with the line on which each stands."""
    for key, value in node.value:
        if key.value in ("defaults", "name"):
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
    if path.parent == CONF:  # its part for Hydra is plumbing, no setting
        node.value = [pair for pair in node.value if pair[0].value != "hydra"]
    lines = text.splitlines()
    assert [key for key, line in leaves(node) if " # " not in lines[line]] == []
