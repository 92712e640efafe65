"""File systems of their own: really full, out of files, read-only. Root alone can mount them."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtrain.runs import checkpoint

pytestmark = pytest.mark.faults

Start = Callable[..., Any]
SameEnd = Callable[[Path, Path, str], None]

ROOM = {"size": 2**26, "nr_inodes": 10_000}  # without a limit tmpfs refuses one later
PAGE = 4096  # bytes that a file of tmpfs takes at least


def options(limits: dict[str, int]) -> str:
    return ",".join(f"{key}={number}" for key, number in limits.items())


class Mount:
    """A tmpfs whose limits can be changed."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        if self._run("mount", "-t", "tmpfs", "-o", options(ROOM), "tmpfs"):
            pytest.skip("a file system can be mounted by root alone")

    def change(self, option: str) -> None:
        """Mount it again, with another option, what it holds untouched."""
        assert not self._run("mount", "-o", f"remount,{option}")

    def end(self) -> None:
        self._run("umount")

    def _run(self, *command: str) -> int:
        return subprocess.run([*command, self.path], capture_output=True).returncode


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    mount = Mount(tmp_path / "mounted")
    yield mount
    mount.end()


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


@pytest.mark.parametrize("limit", ROOM)
def test_a_disk_that_is_really_full_is_told_in_one_line_and_the_run_goes_on_later(
    start: Start, eight_steps: list[str], mount: Mount, whole: Path, cases: int,
    assert_same_end: SameEnd, limit: str, tell: Callable[[str], None],
) -> None:  # fmt: skip
    most, unit = (pages(whole), PAGE) if limit == "size" else (files(whole), 1)
    tried = sorted({max(3, most * case // cases) for case in range(1, cases)})
    failed = 0
    for number in tried:
        mount.change(options({limit: number * unit}))
        status, said = start(eight_steps, mount.path).wait()
        if status:
            failed += 1
            assert (status, said.count("\n")) == (1, 1), (number, said)
            assert said.startswith("flowtrain: "), (number, said)
            assert "No space left on device" in said, (number, said)
        for path in mount.path.glob("run/checkpoints/*.pt"):
            assert checkpoint.read(path)["dim"] == 2, number
        mount.change(options(ROOM))
        assert start(eight_steps, mount.path).wait() == (0, ""), number
        assert_same_end(mount.path / "run", whole, f"{limit} {number}")
        shutil.rmtree(mount.path / "run")
    assert failed > len(tried) // 2
    tell(f"{len(tried)} limits from {tried[0]} to {tried[-1]}, {failed} runs failed")


def test_a_disk_that_became_read_only_is_told_in_one_line_and_read_all_the_same(
    start: Start, eight_steps: list[str], mount: Mount, whole: Path, assert_same_end: SameEnd
) -> None:
    assert start([*eight_steps, "trainer.max_steps=4"], mount.path).wait() == (0, "")
    mount.change("ro")
    for command in (
        ["resume=run", "trainer.max_steps=8"],
        [*eight_steps[:-1], "hydra.run.dir=new"],
    ):
        status, said = start(command, mount.path).wait()
        assert (status, said.count("\n")) == (1, 1), said
        assert said.startswith("flowtrain: "), said
        assert "Read-only file system" in said
    assert checkpoint.read(mount.path / "run" / "checkpoints" / "last.pt")["dim"] == 2
    mount.change("rw")
    assert start(["resume=run", "trainer.max_steps=8"], mount.path).wait() == (0, "")
    assert [path.name for path in mount.path.iterdir()] == ["run"]
