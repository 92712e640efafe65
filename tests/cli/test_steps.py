"""`flowrun steps`: KL against evaluations, from a run's folder."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flowtrain
from flowtrain.config.schema import validate
from flowtrain.training.trainer import train

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


def test_each_number_of_steps_has_a_line(flowrun: Flowrun, folders: dict[str, Path]) -> None:
    told = flowrun(
        "steps", folders["ffjord"], "--steps", "1,8", "--solver", "midpoint", "-n", "500"
    )
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].startswith("ffjord on gaussian_mixture, midpoint")
    assert [line.split()[:2] for line in lines if line.split()[:1] in (["1"], ["8"])] == [
        ["1", "2"], ["8", "16"],
    ]  # fmt: skip
    assert lines[-1].startswith("straightness ")
    assert "flowrun: measured 500 samples of ffjord on gaussian_mixture in" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "0 is refused: it should be at least 1"),
        (["--steps", "1,two"], "invalid list of whole numbers value: '1,two'"),
        (["--solver", "dopri5"], "invalid choice: 'dopri5'"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    flowrun: Flowrun, folders: dict[str, Path], arguments: list[str], message: str
) -> None:
    told = flowrun("steps", folders["ffjord"], *arguments)
    assert told.returncode == 2
    assert message in told.stderr


def test_only_a_continuous_flow_of_a_known_density_has_steps_to_measure(
    flowrun: Flowrun,
    folders: dict[str, Path],
    compose: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    told = flowrun("steps", folders["realnvp"])
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.endswith("realnvp takes no steps; name a run of a continuous flow\n")
    table = tmp_path / "points.csv"
    flow = flowtrain.load(folders["realnvp"])
    table.write_text("a,b\n" + "\n".join(f"{x},{y}" for x, y in flow.sample(60).tolist()))
    config = compose(
        "model=ffjord", "model.width=8", "model.depth=1", "data=table", f"data.path={table}",
        "trainer=debug", "trainer.device=cpu", "trainer.threads=1", "trainer.max_steps=2",
        "trainer.figures=false", "solver=bosh3", "solver@evaluation.solver=bosh3",
    )  # fmt: skip
    train(validate(config), tmp_path / "run")
    told = flowrun("steps", tmp_path / "run")
    assert told.returncode == 1
    assert told.stderr.endswith("KL needs data whose density is known\n")
