"""Configs composed for Python: as at the command line, refused in one line, no trace in Hydra."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase

from flowtrain.cli.compose import compose, compose_option
from flowtrain.cli.typed import checked
from flowtrain.config import CONF
from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError, UserError
from flowtrain.training.trainer import train

SOLVERS = sorted(path.stem for path in (CONF / "solver").glob("*.yaml"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=relnvp"], "model: no option 'relnvp'; did you mean realnvp?"),
        (["modl=affine"], "modl: no such key; did you mean model?"),
        (["trainer.clp=2"], "trainer.clp: no such key; did you mean trainer.clip?"),
        (["seed=-1"], "seed: -1 is refused: it should be greater than or equal to 0"),
        (["x"], "x: cannot be read as key=value; `flowtrain --help` has examples"),
        (
            ["data=custom", "data.target=~/p.py"],
            "data.target=~/p.py: cannot be read as key=value; write $HOME in the place of ~",
        ),
        (["resume=nowhere"], "resume: nowhere: no such folder"),
        (["seed=0,1"], "seed=0,1: several runs; call train for each of them"),
        (["-m"], "-m: only the command line knows it; see folder=..."),
        (["hydra.run.dir=x"], "hydra.run.dir=x: only the command line knows it; see folder=..."),
        (["launcher=joblib"], "launcher=joblib: only sweeps at the command line have a launcher"),
        ("model=affine", "overrides are a list of strings: ['model=affine']"),
        (
            {"model": "affine", "seed": 1},
            "overrides are a list of strings: ['model=affine', 'seed=1']",
        ),
    ],
)
def test_a_mistake_is_one_line(overrides: Any, message: str) -> None:
    with pytest.raises(UserError) as told:
        compose(overrides)
    assert str(told.value) == message


def test_a_new_folder_is_named_as_at_the_command_line() -> None:
    composed = compose(["model=affine", "data=rings"])
    assert composed.folder.parts[0] == "outputs"
    assert composed.folder.name.endswith("-affine-rings")
    assert composed.asked == composed.raw
    assert "hydra" not in composed.raw
    assert not composed.folder.exists()


def test_a_caller_that_is_a_program_of_hydra_s_keeps_its_hydra() -> None:
    assert not GlobalHydra.instance().is_initialized()
    compose(["model=affine"])
    assert not GlobalHydra.instance().is_initialized()
    with hydra.initialize(config_path=None, version_base="1.3"):
        version = VersionBase.instance().getbase()
        compose(["model=affine"])
        assert VersionBase.instance().getbase() is version
        assert GlobalHydra.instance().is_initialized()
        assert hydra.compose(overrides=["+x=1"]) == {"x": 1}


@pytest.fixture(scope="module")
def maf(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a trained MAF."""
    folder = tmp_path_factory.mktemp("maf")
    train(tiny("trainer.max_steps=1", model="maf"), folder)
    return folder


def test_a_run_that_goes_on_is_checked_by_its_own_settings(maf: Path) -> None:
    composed = compose([f"resume={maf}", "trainer.max_steps=2"])
    config = checked(composed.raw, composed.asked)
    assert (config.model.name, config.trainer.max_steps) == ("maf", 2)
    with pytest.raises(ConfigError, match=r"^trainer\.animation: maf has no time to animate"):
        compose([f"resume={maf}", "trainer.animation=true"])
    with pytest.raises(ConfigError, match=r"model\.name: the run has 'maf', this asks for 'glow'"):
        compose([f"resume={maf}", "model=glow"])


def test_a_run_that_goes_on_takes_no_recipe(maf: Path) -> None:
    with pytest.raises(ConfigError, match=r"^experiment: a run that goes on has its own settings"):
        compose([f"resume={maf}", "experiment=best"])


@pytest.mark.parametrize("option", SOLVERS)
def test_an_option_composes_as_on_the_command_line(
    request: pytest.FixtureRequest, option: str
) -> None:
    whole = request.getfixturevalue("compose")(f"solver={option}")
    assert compose_option("solver", option) == whole["solver"]


def test_an_unknown_option_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError) as caught:
        compose_option("solver", "magic")
    assert str(caught.value) == f"solver: 'magic' is unknown; choose from {', '.join(SOLVERS)}"
