"""What Hydra calls back, and overrides as a user types them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from flowtrain.cli.hydra_hooks import compose_option, understood
from flowtrain.config import CONF
from flowtrain.errors import UserError
from hydra_plugins.flowtrain_sweepers import GridSweeper

Compose = Callable[..., dict[str, Any]]
Flowtrain = Callable[..., subprocess.CompletedProcess[str]]

SOLVERS = sorted(path.stem for path in (CONF / "solver").glob("*.yaml"))


@pytest.mark.parametrize("option", SOLVERS)
def test_an_option_composes_as_on_the_command_line(compose: Compose, option: str) -> None:
    assert compose_option("solver", option) == compose(f"solver={option}")["solver"]


def test_an_unknown_option_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError) as caught:
        compose_option("solver", "magic")
    assert str(caught.value) == f"solver: 'magic' is unknown; choose from {', '.join(SOLVERS)}"


def test_a_link_latest_is_followed_before_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "a=1,b").mkdir(parents=True)
    (tmp_path / "latest").symlink_to("outputs/a=1,b")
    assert understood(["resume=latest"]) == ["resume='outputs/a=1,b'"]
    assert understood(["-m", "init_from=latest"]) == ["-m", "init_from='outputs/a=1,b'"]
    assert understood(["init_from=outputs/a=1,b"]) == ["init_from='outputs/a=1,b'"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["data=moons", "seed=1"], ["data=moons", "seed=1"]),
        (["data.arguments.side=2"], ["++data.arguments.side=2"]),
        (["objective.arguments.a.b=1,2"], ["++objective.arguments.a.b=1,2"]),
        (["data.arguments={side:2}"], ["++data.arguments={side:2}"]),
        (["++data.arguments.side=2"], ["++data.arguments.side=2"]),
        (["resume=a,b=c"], ["resume='a,b=c'"]),
        (["resume='a,b'"], ["resume='a,b'"]),
        (["init_from=a b"], ["init_from='a b'"]),
        (["-m", "init_from=a,b"], ["-m", "init_from=a,b"]),
        (["data.path=größe.csv"], ["data.path='größe.csv'"]),
        (["data.path=points (1).csv"], ["data.path='points (1).csv'"]),
        (["data.path=a'b[1]&#.csv"], [r"data.path='a\'b[1]&#.csv'"]),
        (["data.path=a=b.csv"], ["data.path='a=b.csv'"]),
        (["hydra.run.dir=größe/run"], ["hydra.run.dir='größe/run'"]),
        (["hydra.run.dir=~/run"], [f"hydra.run.dir='{Path.home() / 'run'}'"]),
        (["hydra.run.dir=a,b"], ["hydra.run.dir=a,b"]),
        (["hydra.run.dir=runs/${model.name} (1)"], ["hydra.run.dir=runs/${model.name} (1)"]),
        (["data.path='größe.csv'"], ["data.path='größe.csv'"]),
        (["data.path=[a,b]"], ["data.path=[a,b]"]),
        (["-m", "data.path=größe.csv"], ["-m", "data.path=größe.csv"]),
    ],
)
def test_what_hydra_would_take_amiss_is_rewritten(typed: list[str], read: list[str]) -> None:
    assert understood(typed) == read


@pytest.mark.parametrize("data", sorted(path.stem for path in (CONF / "data").glob("*.yaml")))
def test_the_best_recipe_has_finer_splines_where_a_density_needs_them(
    compose: Compose, data: str
) -> None:
    plain = compose("model=spline", f"data={data}")
    best = compose("experiment=best", f"data={data}")
    finer: dict[str, dict[str, dict[str, float]]] = {
        "rings": {"model": {"bins": 32}},
        "checkerboard": {"model": {"bins": 32, "bound": 3.0}, "trainer": {"max_steps": 7000}},
    }
    more = {group: {**plain[group], **changes} for group, changes in finer.get(data, {}).items()}
    assert best == {**plain, **more}
    bins = 8 if data in ("table", "sklearn") else 16  # of rows, finer splines overfit
    assert (plain["model"]["bins"], plain["model"]["bound"]) == (bins, 4.0)


def test_a_resumed_run_keeps_its_record(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    flowtrain(*tiny_overrides, "hydra.run.dir=run")
    record = tmp_path / "run" / ".hydra" / "config.yaml"
    before = record.read_bytes()
    assert flowtrain("resume=run", "trainer.max_steps=22").returncode == 0
    assert record.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_sweep_does_not_keep_the_configs_of_its_jobs(
    flowtrain: Flowtrain, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[JobReturn] = []
    monkeypatch.setattr(sys.modules[GridSweeper.__module__], "raise_defect", returned.append)
    short = ("trainer.max_steps=1", "logger=none", "hydra.sweep.dir=sweep")
    assert flowtrain("-m", *tiny_overrides, *short).returncode == 0
    assert [job.status for job in returned] == [JobStatus.COMPLETED]
    assert returned[0].cfg is returned[0].hydra_cfg is None
