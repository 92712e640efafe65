"""File systems of their own: full, out of files, beyond a quota, read-only. Root can mount them."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowtrain.runs import checkpoint
from flowtrain.training import trainer
from flowtrain.training.run import Run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker

pytestmark = pytest.mark.faults

Start = Callable[..., Any]
SameEnd = Callable[[Path, Path, str], None]
Limit = Callable[[int | None], None]  # None lifts it

ROOM = {"size": 2**26, "nr_inodes": 10_000}  # without a limit tmpfs refuses one later
PAGE = 4096  # bytes that a file of tmpfs takes at least


def done(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def mounted(path: Path, *how: str | Path) -> Iterator[Path]:
    """Mount a file system at a new folder, or skip the test."""
    path.mkdir(exist_ok=True)
    if subprocess.run(["mount", *how, path], capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    try:
        yield path
    finally:
        done("umount", path)


def image(path: Path, size: int, program: str, *options: str) -> Path:
    """Make a file system in a file, or skip the test."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with path.open("wb") as file:
        file.truncate(size)
    done(program, *options, path)
    return path


def remount(path: Path, option: str) -> None:
    """Mount a file system again, with another option, what it holds untouched."""
    done("mount", "-o", f"remount,{option}", path)


@contextmanager
def of_memory(home: Path, key: str) -> Iterator[tuple[Path, Limit]]:
    """Yield a tmpfs, and what limits its bytes or its files."""

    def limit(number: int | None) -> None:
        unit = PAGE if key == "size" else 1
        limits = ROOM if number is None else {key: number * unit}
        remount(path, ",".join(f"{name}={most}" for name, most in limits.items()))

    room = ",".join(f"{name}={most}" for name, most in ROOM.items())
    with mounted(home / "mounted", "-t", "tmpfs", "-o", room, "tmpfs") as path:
        yield path, limit


@contextmanager
def of_quota(home: Path) -> Iterator[tuple[Path, Limit]]:
    """Yield a subvolume of a Btrfs, and what limits its bytes by a quota."""

    def limit(number: int | None) -> None:
        done("btrfs", "qgroup", "limit", "none" if number is None else str(number * PAGE), path)

    disk = image(home / "disk", 2**27, "mkfs.btrfs", "--mixed")
    with mounted(home / "mounted", "-o", "loop", disk) as whole:
        path = whole / "limited"
        done("btrfs", "quota", "enable", whole)
        done("btrfs", "subvolume", "create", path)
        yield path, limit


FULL = "No space left on device"
# By what is limited: the file system, how many steps of the limit are tried, what the system says.
LIMITED: dict[str, tuple[Callable[[Path], AbstractContextManager[tuple[Path, Limit]]], int, str]]
LIMITED = {
    "bytes": (lambda home: of_memory(home, "size"), 1, FULL),
    "files": (lambda home: of_memory(home, "nr_inodes"), 1, FULL),
    "quota": (of_quota, 3, "Disk quota exceeded"),
}


@pytest.fixture(scope="module")
def whole(start: Start, eight_steps: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that nothing disturbed."""
    home = tmp_path_factory.mktemp("whole")
    assert start(eight_steps, home).wait() == (0, "")
    return home / "run"


def pages(run: Path) -> int:
    """Return how many pages a folder takes, and a second checkpoint while it is written."""
    sizes = [path.stat().st_size for path in run.rglob("*") if path.is_file()]
    return sum(-(-size // PAGE) for size in [*sizes, max(sizes)])


def files(run: Path) -> int:
    return len([*run.rglob("*")])


@pytest.mark.parametrize("limited", LIMITED)
def test_a_disk_that_is_really_full_is_told_in_one_line_and_the_run_goes_on_later(
    start: Start, eight_steps: list[str], tmp_path: Path, whole: Path, cases: int,
    assert_same_end: SameEnd, limited: str, tell: Callable[[str], None],
) -> None:  # fmt: skip
    make, every, refusal = LIMITED[limited]
    most = files(whole) if limited == "files" else pages(whole)
    tried = sorted({max(3, most * case // cases) for case in range(1, cases, every)})
    failed = 0
    with make(tmp_path) as (home, limit):
        for number in tried:
            limit(number)
            status, said = start(eight_steps, home).wait()
            if status:
                failed += 1
                assert (status, said.count("\n")) == (1, 1), (number, said)
                assert said.startswith("flowtrain: "), (number, said)
                assert f": {refusal}" in said, (number, said)
            for path in home.glob("run/checkpoints/*.pt"):
                assert checkpoint.read(path)["dim"] == 2, number
            limit(None)
            assert start(eight_steps, home).wait() == (0, ""), number
            assert_same_end(home / "run", whole, f"{limited} {number}")
            shutil.rmtree(home / "run")
    assert failed > len(tried) // 2
    tell(f"{len(tried)} limits from {tried[0]} to {tried[-1]}, {failed} runs failed")


def test_a_disk_that_became_read_only_is_told_in_one_line_and_read_all_the_same(
    start: Start, eight_steps: list[str], tmp_path: Path
) -> None:
    with of_memory(tmp_path, "size") as (home, _):
        assert start([*eight_steps, "trainer.max_steps=4"], home).wait() == (0, "")
        remount(home, "ro")
        for command in (
            ["resume=run", "trainer.max_steps=8"],
            [*eight_steps[:-1], "hydra.run.dir=new"],
        ):
            status, said = start(command, home).wait()
            assert (status, said.count("\n")) == (1, 1), said
            assert said.startswith("flowtrain: "), said
            assert "Read-only file system" in said
        assert checkpoint.read(home / "run" / "checkpoints" / "last.pt")["dim"] == 2
        remount(home, "rw")
        assert start(["resume=run", "trainer.max_steps=8"], home).wait() == (0, "")
        assert [path.name for path in home.iterdir()] == ["run"]


def broken_from(step: int) -> Callable[[], None]:
    """Return what tells ext4 of an error after one of a run's steps: it becomes read-only."""

    def disturb() -> None:
        original = train_step

        def struck(run: Run, tracker: Tracker) -> None:
            original(run, tracker)
            if run.progress.step == step:
                device = os.stat(run.folder.path).st_dev
                name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
                Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("asked for by a test")

        pytest.MonkeyPatch().setattr(trainer, "train_step", struck)  # to the end of its process

    return disturb


@pytest.mark.parametrize("step", range(1, 9))
def test_a_disk_that_breaks_under_a_run_is_told_in_one_line_and_the_run_goes_on_later(
    start: Start, eight_steps: list[str], tmp_path: Path, whole: Path, assert_same_end: SameEnd,
    step: int,
) -> None:  # fmt: skip
    disk = image(tmp_path / "disk", 2**25, "mkfs.ext4", "-q")
    how = ("-o", "loop,errors=remount-ro", disk)
    with mounted(tmp_path / "mounted", *how) as home:
        status, said = start(eight_steps, home, broken_from(step)).wait()
        assert (status, said.count("\n")) == (1, 1), said
        assert said.startswith("flowtrain: "), said
        assert "Read-only file system" in said
    with mounted(tmp_path / "mounted", *how) as home:
        assert start(eight_steps, home).wait() == (0, "")
        assert_same_end(home / "run", whole, str(step))
