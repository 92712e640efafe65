"""The folders of two tiny runs, and the command `flowrun` on them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.cli import flowrun as cli
from flowtrain.config.schema import Config
from flowtrain.training.trainer import train


@pytest.fixture(scope="session")
def folders(
    tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return the run folders of a discrete and of a continuous flow."""
    home = tmp_path_factory.mktemp("runs")
    train(tiny("optimizer.lr=0.01"), home / "realnvp")
    train(tiny("optimizer.lr=0.1", "trainer.max_steps=10", model="ffjord"), home / "ffjord")
    return {name: home / name for name in ("realnvp", "ffjord")}


@pytest.fixture
def flowrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        try:
            code = cli.execute([str(each) for each in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run


@pytest.fixture(scope="session")
def launch_flowrun() -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the command as a program."""

    def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        program = Path(sys.executable).with_name("flowrun")
        return subprocess.Popen([program, *arguments], text=True, **pipes)

    return start
