"""Commands on a folder of replicas: they take the mixture, or name one run to take."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.config.schema import Config
from flowtrain.training.trainer import train

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of three replicas, of the seeds 5 to 7."""
    folder = tmp_path_factory.mktemp("replicas") / "run"
    train(tiny("seed=5", "trainer.replicas=3", "trainer.max_steps=2"), folder)
    return folder


def test_what_is_listed(folder: Path, flowrun: Flowrun) -> None:
    (row,) = flowrun("list", folder.parent).stdout.splitlines()[1:]
    assert row.split()[:5] == ["realnvp", "gaussian_mixture", "5-7", "completed", "2"]
    assert "3 jobs: 3 completed" in flowrun("status", folder).stdout
    compared = flowrun("compare", folder.parent, "--sort", "runs").stdout
    assert "±" in compared


def test_the_mixture_is_sampled_scored_and_evaluated(
    folder: Path, flowrun: Flowrun, tmp_path: Path
) -> None:
    drawn = flowrun("sample", folder, "-n", "7", "-o", tmp_path / "points.csv")
    assert "mixture of 3 realnvp on gaussian_mixture" in drawn.stderr
    assert "best weights of each" in drawn.stderr
    assert len(flowrun("score", folder, tmp_path / "points.csv").stdout.splitlines()) == 8
    told = flowrun("evaluate", folder).stdout
    assert told.startswith("mixture of 3 realnvp on gaussian_mixture, seeds 5 to 7, in nats")
    kl = json.loads((folder / "result.json").read_text())["mixture"]["kl/test"]
    assert f"{kl:.5f} by quadrature" in told


def test_the_curves_of_replicas_are_those_of_their_means(
    folder: Path, flowrun: Flowrun, tmp_path: Path
) -> None:
    told = flowrun("plot", folder, "--what", "curves", "--dpi", "20", "-o", "curves.svg")
    assert (told.returncode, told.stderr.splitlines()[0]) == (0, "flowrun: wrote curves.svg")
    assert (tmp_path / "curves.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    "command",
    [("plot", "-o", "x.pdf"), ("diagnose",), ("export", "-o", "x.pt2"), ("steps",), ("animate",)],
    ids=lambda command: command[0],
)
def test_commands_that_take_one_run_name_a_replica(
    folder: Path, flowrun: Flowrun, command: tuple[str, ...]
) -> None:
    refused = flowrun(command[0], folder, *command[1:])
    assert refused.returncode == 1
    assert refused.stderr == (
        f"flowrun: {folder} holds 3 replicas, and this command takes one run; "
        f"try {folder}/replica-0\n"
    )


def test_replicas_go_on_at_the_command_line(
    flowtrain: Flowrun, tiny_overrides: list[str], tmp_path: Path
) -> None:
    run = ["trainer.replicas=2", "trainer.max_steps=2", "hydra.run.dir=run"]
    first = flowtrain(*tiny_overrides, *run)
    assert first.returncode == 0, first.stderr
    assert "2 x realnvp on gaussian_mixture, seeds 0 to 1, in nats" in first.stdout
    assert (tmp_path / "run" / ".hydra" / "config.yaml").exists()
    longer = flowtrain("resume=run", "trainer.max_steps=4")
    assert longer.returncode == 0, longer.stderr
    again = flowtrain("resume=run", "trainer.max_steps=4")
    assert "finished already, at step 4" in again.stdout
