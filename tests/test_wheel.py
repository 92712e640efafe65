"""The wheel, installed beside its dependencies and nothing of this checkout."""

import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain import __version__

REPOSITORY = Path(__file__).parents[1]

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(REPOSITORY)], check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Return a function that runs the installed `flowtrain`, far from the checkout."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, *offline, str(wheel)], check=True)
    # The dependencies come from this environment. Its own .pth files, and with them the editable
    # flowtrain, are not read: a line of a .pth file only adds a folder.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [home / "bin" / program, *arguments],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_the_wheel_s_flowtrain_is_not_the_checkout_s(installed: Command) -> None:
    told = installed("python", "-c", "import flowtrain; print(flowtrain.__file__)")
    assert "site-packages" in told.stdout
    assert str(REPOSITORY) not in told.stdout


def test_every_file_of_conf_is_in_the_wheel(installed: Command) -> None:
    code = (
        "from flowtrain.config import CONF;"
        "print(*sorted(str(path.relative_to(CONF)) for path in CONF.rglob('*.yaml')))"
    )
    files = installed("python", "-c", code).stdout.split()
    conf = REPOSITORY / "conf"
    assert files == sorted(str(path.relative_to(conf)) for path in conf.rglob("*.yaml"))


def test_the_installed_command_helps_and_trains(
    installed: Command, tiny_overrides: list[str], tmp_path: Path
) -> None:
    told = installed("python", "-m", "flowtrain", "--version")
    assert (told.returncode, told.stdout) == (0, f"flowtrain {__version__}\n")
    told = installed("flowtrain", "--help")
    assert told.returncode == 0
    assert "realnvp" in told.stdout
    told = installed(
        "flowtrain", *tiny_overrides, "trainer.max_steps=3", f"hydra.run.dir={tmp_path}"
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "completed"
    told = installed("flowrun", "sample", str(tmp_path), "-n", "3", "-o", "-")
    assert told.returncode == 0, told.stderr
    assert told.stderr.startswith("flowrun: wrote 3 points, x0,x1, to standard output\n")
    assert len(told.stdout.splitlines()) == 4


def test_the_wheel_brings_the_sweeper_that_hydra_looks_for(
    installed: Command, tiny_overrides: list[str], tmp_path: Path
) -> None:
    few = [*tiny_overrides, "trainer.max_steps=1", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    assert installed("flowtrain", "-m", *few).returncode == 0
    told = installed("flowtrain", "-m", *few)
    assert (told.returncode, told.stderr) == (0, "")
    assert "2 jobs: 2 completed; none to run" in told.stdout
