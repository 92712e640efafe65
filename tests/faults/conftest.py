"""Runs that are disturbed, each in a process of its own, and what their ends are held to."""

import json
import math
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from flowtrain.cli import flowtrain as cli
from flowtrain.runs import checkpoint
from flowtrain.runs.load import load

# What a run imports and takes seconds is there before the forks.
SLOW_TO_IMPORT = ("torch.utils.tensorboard", "flowtrain.training.trainer")


@dataclass
class Forked:
    """A command at work in another process.

    Attributes:
        pid: of the process.
        errors: a pipe with its standard error.
    """

    pid: int
    errors: int

    def kill_after(self, seconds: float) -> None:
        """Kill it; SIGKILL lets nothing be written any more."""
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        """Return its status, negative for a signal, and its standard error."""
        with os.fdopen(self.errors, "rb") as file:
            said = file.read().decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said


def start(arguments: list[str], folder: Path, disturb: Callable[[], None] = lambda: None) -> Forked:
    errors, said = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside idle threads
        pid = os.fork()
    if pid == 0:
        _run(arguments, folder, said, disturb)
    os.close(said)
    return Forked(pid, errors)


def _run(arguments: list[str], folder: Path, said: int, disturb: Callable[[], None]) -> NoReturn:
    code = 70
    try:
        os.chdir(folder)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number, target in enumerate((nowhere, nowhere, said)):
            os.dup2(target, number)
        sys.stdout, sys.stderr = (
            open(number, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
            for number in (1, 2)
        )
        sys.argv = ["flowtrain", *arguments]
        disturb()
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="session", name="start")
def fixture_start() -> Callable[..., Forked]:
    """Return a function that starts `flowtrain` in a folder; `disturb` is called there first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in SLOW_TO_IMPORT:
            import_module(module)
    return start


@pytest.fixture(scope="session")
def eight_steps() -> list[str]:
    """Return what `flowtrain` is asked for a run of eight steps in the folder `run`."""
    return [
        "data=gaussian_mixture", "trainer=debug", "trainer.device=cpu", "trainer.batch_size=32",
        "trainer.max_steps=8", "trainer.log_every=1", "trainer.evaluate_every=4",
        "trainer.figures=false", "splits.train=256", "splits.val=32", "splits.test=32",
        "evaluation.grid=16", "model=realnvp", "model.couplings=2", "model.hidden=8",
        "model.depth=1", "hydra.run.dir=run",
    ]  # fmt: skip


LIMIT = 120  # seconds of a CPU, after which a short run has no end


def limited() -> None:
    """End this process by a signal, should it compute or wait for ever."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + LIMIT,) * 2)
    signal.alarm(10 * LIMIT)  # of a clock: other processes may take most of it


def tensors(state: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor of a checkpoint: weights, their average, the optimizer's moments."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for each in state.values() if isinstance(state, dict) else state:
            yield from tensors(each)


@pytest.fixture(scope="session")
def hold(start: Callable[..., Forked]) -> Callable[..., str]:
    """Return a function that runs `flowtrain` with outputs in `run`, and returns what it refused.

    It checks what holds for any run: it ends by itself; without a word on standard error, and a
    flow that samples and scores in finite numbers; or with a line for each refusal, and a folder
    that says so; and no checkpoint holds NaN or infinity.
    """

    def hold(home: Path, *arguments: str) -> str:
        status, said = start([*arguments], home, limited).wait()
        run, case = home / "run", f"{arguments}: {said}"
        saved = run / "result.json"
        result = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
        for path in (run / "checkpoints").glob("*.pt"):
            assert all(each.isfinite().all() for each in tensors(checkpoint.read(path))), case
        if status:
            assert status == 1, case
            assert said.startswith("flowtrain: "), case
            assert said.count("\n") <= len(arguments), case
            assert "Traceback" not in said, case
            assert result.get("status", "failed") == "failed", case
            return said
        assert said == "", case
        assert result["status"] == "completed", case
        assert math.isfinite(result["metrics"]["nll/test"]), case
        log = (run / "flowtrain.log").read_text(encoding="utf-8")
        assert log.count("WARNING") < 10, case
        flow = load(run)
        context = torch.zeros(100, flow.context_dim) if flow.context_dim else None
        x = flow.sample(100, torch.Generator().manual_seed(0), context)
        assert x.isfinite().all(), case
        assert flow.log_prob(x, context).isfinite().all(), case
        return ""

    return hold


@pytest.fixture(scope="session")
def cases() -> int:
    """Return the number of cases of each kind: FAULTS_CASES of the environment."""
    return int(os.environ.get("FAULTS_CASES", "12"))


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return a generator of the test's own: the same draws every time."""
    return random.Random(request.node.name)


@pytest.fixture
def tell(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], None]:
    """Return a function that prints what was counted."""

    def tell(counted: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {counted}")

    return tell


def _flat(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every number and tensor by its path, except clocks, and an optimizer's settings.

    Those are the config's, and set before each step: a run that is resumed at its end takes none.
    """
    if isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _flat(value, f"{path}.{key}")
    elif not any(part in path for part in ("seconds", ".speed/", ".param_groups.")):
        yield path, state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


def end_of(run: Path) -> dict[str, Any]:
    """Return all that a run ended with, but for clocks: weights, optimizer, history, result."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    parts: dict[str, Any] = {
        "last": checkpoint.read(run / "checkpoints" / "last.pt"),
        "best": checkpoint.read(run / "checkpoints" / "best.pt"),
        "metrics": [json.loads(line) for line in lines],
        "result": json.loads((run / "result.json").read_text(encoding="utf-8")),
    }
    del parts["result"]["environment"]
    return {f"{name}{path}": value for name in parts for path, value in _flat(parts[name])}


@pytest.fixture(scope="session")
def assert_same_end() -> Callable[[Path, Path, str], None]:
    """Return a check that a run ended as another did, to the bit, and left nothing behind."""

    def assert_same_end(run: Path, whole: Path, case: str) -> None:
        found, expected = end_of(run), end_of(whole)
        differing = [
            key for key in expected | found if found.get(key, "none") != expected.get(key, "none")
        ]
        assert differing == [], case
        left = [path for path in run.rglob("*") if path.suffix == ".tmp" or path.name == ".lock"]
        assert left == [], case

    return assert_same_end
