"""Mistakes told before Hydra composes: unknown keys, and tables that are not there."""

import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from flowtrain.cli.keys import known_keys
from flowtrain.cli.refusals import refuse_missing_tables, refuse_unknown_keys
from flowtrain.config import CONF
from flowtrain.errors import UserError

Compose = Callable[..., dict[str, Any]]
Flowtrain = Callable[..., subprocess.CompletedProcess[str]]

PLUGINS = {"joblib": "hydra_plugins.hydra_joblib_launcher", "slurm": "hydra_plugins.hydra_submitit"}


def installed(option: str) -> bool:
    plugin = PLUGINS.get(option)
    try:
        return plugin is None or find_spec(plugin) is not None
    except ModuleNotFoundError:
        return False


def choices() -> Iterator[list[str]]:
    """Yield every choice of an option that a user may type, group=option, some at a time."""
    groups: dict[str, list[str]] = {}
    for path in sorted(CONF.glob("*/*.yaml")):
        group, option = path.parent.name, path.stem
        if group == "experiment":  # it makes choices of its own
            yield [f"{group}={option}"]
        elif group != "experiment_on" and (group != "launcher" or installed(option)):
            groups.setdefault(group, []).append(f"{group}={option}")
    groups["evaluation.solver"] = [
        each.replace("=", "@evaluation.solver=") for each in groups["solver"]
    ]
    for row in zip_longest(*groups.values()):
        yield [choice for choice in row if choice is not None]


def keys(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of settings and of the groups of settings in them."""
    for key, value in settings.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


@pytest.mark.parametrize("chosen", list(choices()), ids=" ".join)
def test_every_key_of_every_option_is_known(compose: Compose, chosen: list[str]) -> None:
    composed = {*keys(compose(*chosen))}
    assert composed <= {*known_keys(chosen)}
    assert composed <= {*known_keys([])}
    refuse_unknown_keys([*chosen, *(f"{key}=1" for key in composed if "." in key)])


def test_the_keys_of_an_option_that_is_not_chosen_are_unknown() -> None:
    assert "model.hidden" in known_keys(["data=moons"])
    assert "model.hidden" not in known_keys(["model=affine"])
    assert "evaluation.solver.rtol" not in known_keys(["solver@evaluation.solver=rk4"])
    assert "solver.rtol" in known_keys(["solver@evaluation.solver=rk4"])


def test_a_sweep_over_options_knows_the_keys_of_all() -> None:
    assert {"model.hidden", "model.width"} <= {*known_keys(["model=realnvp,ffjord"])}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["optimizer.rl=1"], "optimizer.rl: no such key; did you mean optimizer.lr"),
        (["data=moons", "sede=1"], "sede: no such key; did you mean seed?"),
        (["-m", "model=affine,realnvp", "trainer.max_step=1,2"], "trainer.max_step: no such key; "),
        (
            ["model=realnvp", "model.width=8"],
            "model.width: no key of the chosen model, but of ffjord",
        ),
        (["--model", "realnvp"], "--model: a setting has no dashes; type model=realnvp"),
        (["-model", "realnvp"], "-model: a setting has no dashes; type model=realnvp"),
        (["--seed"], "--seed: a setting has no dashes; type seed=..."),
        (["trainer.epochs=1"], "trainer.epochs: no such key; choose from trainer.animation, "),
        (["--seed=3"], "--seed=3: a setting has no dashes; type seed=3"),
        (["model=realnvp", "model.wide=8"], "model.wide: no such key; choose from model.activat"),
        (
            ["data=moons", "data.path=hw.csv"],
            "data.path: no key of the chosen data, but of table",
        ),
        (["data=tabel", "data.path=hw.csv"], "data: no option 'tabel'; did you mean table?"),
        (["data.noise=0.1", "data=moon"], "data: no option 'moon'; did you mean moons"),
        (["model=splin", "model.bins=8"], "model: no option 'splin'; did you mean spline?"),
        (["-m", "model=spline,glou", "model.bins=8"], "model: no option 'glou'; did you mean glow"),
        (
            ["solver@evaluation.solver=eulr", "evaluation.solver.rtol=1e-3"],
            "solver: no option 'eulr'; did you mean euler?",
        ),
        (["data=x/hw.csv", "data.path=1"], "data: no option 'x/hw.csv'; for a file type data=tab"),
        (["evaluation.solver.rtl=1"], "evaluation.solver.rtl: no such key; did you mean "),
    ],
)
def test_a_mistyped_key_is_refused_with_the_nearest(arguments: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_unknown_keys(arguments)
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-m", "seed=0,1"],
        ["hydra.run.dir=run"],
        ["-m", "hydra.sweep.dir=all"],
        ["++data.arguments.anything=1", "+new=1", "~solver"],
        ["solver@evaluation.solver=rk4", "evaluation.solver.step_size=0.1"],
        ["resume='outputs/a,b=c'", "trainer.max_steps=1"],
        ["model=realnvp,spline"],
        ["-m", "model=choice(realnvp,spline)"],
        ["data=${oc.env:DATA}"],
        ["hydra.searchpath=[file://mine]", "model=mine", "model.own=1"],
        ["--config-dir", "mine", "of.ones.own=1"],
        ["--config-dir=mine", "of.ones.own=1"],
        ["-cd", "mine", "of.ones.own=1"],
        ["-sc", "install=bash"],
        ["--shell-completion", "query=bash"],
    ],
)
def test_what_may_be_right_is_left_to_hydra(arguments: list[str]) -> None:
    refuse_unknown_keys(arguments)


def test_a_mistyped_key_is_refused_before_hydra_composes(
    flowtrain: Flowtrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> Callable[..., Callable[[], None]]:
        def app() -> None:
            raise AssertionError("Hydra composed a config")

        return lambda run: app

    monkeypatch.setattr("hydra.main", never)
    told = flowtrain("optimizer.rl=1")
    assert told.returncode == 1
    assert told.stderr.startswith("flowtrain: optimizer.rl: no such key; did you mean optimizer.lr")
    assert len(told.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["data=table", "data.path=nowhere.csv"], "nowhere.csv"),
        (["-m", "data=table", "data.path=here.csv,no where.csv"], "no where.csv"),
        (["data=table", "data.path=~/nowhere.csv"], "~/nowhere.csv"),
    ],
)
def test_a_table_that_is_not_there_is_refused_before_anything_is_written(
    flowtrain: Flowtrain, tmp_path: Path, arguments: list[str], missing: str
) -> None:
    (tmp_path / "here.csv").write_text("a,b\n1,2\n")
    told = flowtrain(*arguments)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == f"flowtrain: data.path: {missing}: no such file\n"
    assert [path.name for path in tmp_path.iterdir()] == ["here.csv"]


def test_a_table_that_is_there_or_may_be_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.csv").touch()
    refuse_missing_tables(["data.path=a b.csv", "data.path='a,b.csv'", "data.path=${oc.env:X}"])
