"""What is given of the points of a run of p(x | c), at every command that opens one."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import flowtrain
from flowtrain.config.schema import Config
from flowtrain.training.trainer import train

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def conditional(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "conditional"
    train(tiny("data.condition=component", "trainer.max_steps=3", model="ffjord"), folder)
    return folder


def test_points_of_one_condition_are_drawn(
    flowrun: Flowrun, conditional: Path, tmp_path: Path
) -> None:
    told = flowrun("sample", conditional, "-n", "20", "-o", "x.npy", "--given", "component=2")
    assert told.returncode == 0, told.stderr
    assert "ffjord on gaussian_mixture, component=2 in " in told.stderr
    flow = flowtrain.load(conditional).given(torch.tensor([0.0, 0.0, 1.0]))
    expected = flow.sample(20, torch.Generator().manual_seed(0))
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "x.npy")), expected)


def test_an_operation_of_a_command_has_one_thread(flowrun: Flowrun, conditional: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert flowrun("evaluate", conditional).returncode == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate",),
        ("evaluate", "--given", "component=0"),
        ("plot", "-o", "c.png", "--grid", "16"),
        ("plot", "--what", "paths", "-o", "c.png", "--given", "component=0"),
        ("steps", "--steps", "1", "-n", "50", "--given", "component=1"),
    ],
    ids=" ".join,
)
def test_commands_take_a_conditional_run(
    command: tuple[str, ...], flowrun: Flowrun, conditional: Path
) -> None:
    name, *options = command
    told = flowrun(name, conditional, *options)
    assert told.returncode == 0, told.stderr
    if options[:1] == ["--given"]:
        assert options[1] in told.stdout


@pytest.mark.parametrize("command", ["sample -n 5 -o x.csv", "animate", "steps"])
def test_a_command_that_needs_a_condition_says_which_there_are(
    command: str, flowrun: Flowrun, conditional: Path
) -> None:
    name, *options = command.split()
    told = flowrun(name, conditional, *options)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.endswith(
        "is a run of p(x | c), c: component (0, 1 or 2); name one with --given\n"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("component=3", "'3' is unknown; known: '0', '1', '2'"),
        ("arc=1", "'arc' is no condition; the conditions are component (0, 1 or 2)"),
        ("component", "'component' is refused: it should be NAME=VALUE"),
    ],
)
def test_an_unknown_condition_is_refused_in_one_line(
    given: str, message: str, flowrun: Flowrun, conditional: Path
) -> None:
    told = flowrun("sample", conditional, "-n", "5", "-o", "x.csv", "--given", given)
    assert told.returncode in (1, 2)
    assert message in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_a_run_without_conditions_is_given_none(flowrun: Flowrun, folders: dict[str, Path]) -> None:
    told = flowrun("evaluate", folders["realnvp"], "--given", "component=1")
    assert told.returncode == 1
    assert told.stderr.endswith("is no run of p(x | c); leave it out\n")
