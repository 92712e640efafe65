"""The help of `flowtrain`: every group, every option, those of a user's folder too."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.config import CONF

Flowtrain = Callable[..., subprocess.CompletedProcess[str]]

# What a recipe needs more on one density is chosen by both, not by a user.
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name[-3:] != "_on")


def listed(help_text: str) -> dict[str, list[str]]:
    """Return the options that the help lists, by group."""
    listed = help_text.split("their options")[1].split("\n\n")[0].replace("\n  ", " ")
    lines = listed.splitlines()[1:]
    return {
        group: names.split(", ") for group, _, names in (line.partition(": ") for line in lines)
    }


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_option_of_every_group(flowtrain: Flowtrain, flag: str) -> None:
    told = flowtrain(flag)
    assert (told.returncode, told.stderr) == (0, "")
    assert listed(told.stdout) == {
        group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS
    }


def test_help_fits_a_terminal_of_80_columns(flowtrain: Flowtrain) -> None:
    assert max(map(len, flowtrain("--help").stdout.splitlines())) <= 80


def test_help_explains_every_group_and_shows_examples(flowtrain: Flowtrain) -> None:
    told = flowtrain("--help").stdout
    explained = told.split("groups:\n")[1].split("\n\n")[0].splitlines()
    groups = [line.split()[0] for line in explained if line[2] != " "]
    assert {*groups} == {*GROUPS, "solver@evaluation.solver"}
    sentences = re.split(r"\n  (?! )", "\n".join(explained))
    assert all(len(text.split()) > 1 for text in sentences)
    examples = told.split("examples:\n")[1].split("\n\n")[0].splitlines()
    assert len(examples) >= 5
    assert all(line.strip().startswith("flowtrain ") for line in examples)


@pytest.mark.parametrize(
    "flags", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]]
)
def test_help_lists_the_options_of_a_folder_of_one_s_own(
    flowtrain: Flowtrain, tmp_path: Path, flags: list[str]
) -> None:
    for name in ("data/pair", "sweeps/nightly"):
        path = tmp_path / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("name: gaussian_mixture\n")
    options = listed(flowtrain(*flags, "--help").stdout)
    assert {"pair", "moons"} <= {*options["data"]}
    assert options["sweeps"] == ["nightly"]
    assert "pair" not in listed(flowtrain("--help").stdout)["data"]
