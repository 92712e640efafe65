"""A disk that fills, and a folder that goes, while a run is at work: one line, the rest intact."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.runs import checkpoint
from flowtrain.runs.load import load
from flowtrain.training import trainer
from flowtrain.training.run import Run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker

pytestmark = pytest.mark.faults

Start = Callable[..., Any]
SameEnd = Callable[[Path, Path, str], None]


def filled_at(limit: int) -> Callable[[], None]:
    """Return what lets no file of a run grow beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.fixture(scope="module")
def whole(start: Start, eight_steps: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of 4 steps, one of 8 that went on from it, and their sizes."""
    home = tmp_path_factory.mktemp("whole")
    assert start([*eight_steps, "trainer.max_steps=4"], home).wait() == (0, "")
    (home / "run").rename(home / "half")
    shutil.copytree(home / "half", home / "run")
    assert start(["resume=run", "trainer.max_steps=8"], home).wait() == (0, "")
    return home


def sizes(folder: Path) -> list[int]:
    return sorted({path.stat().st_size for path in folder.rglob("*") if path.is_file()})


def limits(whole: Path, cases: int) -> list[int]:
    """Return sizes at which each kind of file is cut: just below each, and spread over all."""
    reached = sizes(whole / "run")
    spread = [reached[-1] * case // cases for case in range(cases)]
    return sorted({max(0, size - 1) for size in reached} | {*spread})


def test_a_disk_that_fills_is_told_in_one_line_and_the_run_goes_on_later(
    start: Start, tmp_path: Path, whole: Path, cases: int, assert_same_end: SameEnd,
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    failed = 0
    tried = limits(whole, cases)
    for limit in tried:
        home = tmp_path / str(limit)
        run = home / "run"
        shutil.copytree(whole / "half", run)
        command = ["resume=run", "trainer.max_steps=8"]
        status, said = start(command, home, filled_at(limit)).wait()
        if status:
            failed += 1
            assert (status, said.count("\n")) == (1, 1), (limit, said)
            assert said.startswith("flowtrain: "), (limit, said)
            assert "File too large" in said, (limit, said)
        assert load(run, "last").dim == load(run, "best").dim == 2, limit
        assert start(command, home).wait() == (0, ""), limit
        assert_same_end(run, whole / "run", f"limit {limit}")
    assert failed > len(tried) // 2
    tell(f"{len(tried)} limits from {tried[0]} to {tried[-1]} bytes, {failed} runs failed")


def test_a_new_run_on_a_full_disk_is_refused_in_one_line(
    start: Start, eight_steps: list[str], tmp_path: Path, whole: Path, cases: int,
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    tried, failed = limits(whole, cases), 0
    for limit in tried:
        home = tmp_path / str(limit)
        home.mkdir()
        status, said = start(eight_steps, home, filled_at(limit)).wait()
        if status:
            failed += 1
            assert (status, said.count("\n")) == (1, 1), (limit, said)
            assert said.startswith("flowtrain: "), (limit, said)
        for path in home.glob("run/checkpoints/*"):
            assert checkpoint.read(path)["dim"] == 2, limit
    assert failed > len(tried) // 2
    tell(f"{len(tried)} limits, {failed} runs failed")


def without_folder_from(step: int) -> Callable[[], None]:
    """Return what removes the folder of a run after one of its steps."""

    def disturb() -> None:
        original = train_step

        def struck(run: Run, tracker: Tracker) -> None:
            original(run, tracker)
            while run.progress.step == step and run.folder.path.exists():
                # TensorBoard's thread opens its file by name, and may put it back meanwhile.
                shutil.rmtree(run.folder.path, ignore_errors=True)

        pytest.MonkeyPatch().setattr(trainer, "train_step", struck)  # to the end of its process

    return disturb


@pytest.mark.parametrize("step", range(1, 9))
def test_a_folder_that_is_removed_ends_the_run_in_one_line(
    start: Start, eight_steps: list[str], tmp_path: Path, step: int
) -> None:
    status, said = start(eight_steps, tmp_path, without_folder_from(step)).wait()
    assert status == 1
    assert said == "flowtrain: run/metrics.jsonl: removed while the run was at work\n"
    assert start(eight_steps, tmp_path).wait() == (0, "")
