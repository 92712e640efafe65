"""One process at a time in a folder, and none that is dead."""

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowtrain.errors import UserError
from flowtrain.runs.lock import LockedError, locked, owner

HOLD = """
import sys, time
from pathlib import Path
from flowtrain.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that holds the lock of tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused_by_the_owner_s_name_until_it_dies(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    named = f"process {holder.pid} on {socket.gethostname()}"
    assert owner(tmp_path) == named
    with pytest.raises(LockedError) as refused, locked(tmp_path, patience=0):
        pytest.fail("two at work")
    assert str(refused.value) == f"{tmp_path}: {named} is at work there"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()  # and means nothing
    assert owner(tmp_path) is None
    with locked(tmp_path, patience=0):
        assert owner(tmp_path) == f"process {os.getpid()} on {socket.gethostname()}"
    assert list(tmp_path.iterdir()) == []


def test_an_owner_that_ends_soon_is_waited_for(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    threading.Timer(0.2, holder.kill).start()
    with locked(tmp_path, patience=30):
        assert holder.wait() == -signal.SIGKILL


def test_two_in_one_process_are_kept_apart_too(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(LockedError), locked(tmp_path, patience=0):
        pytest.fail("two at work")


def take_turns(folder: Path, turns: int) -> None:
    """Count in a file, which loses a turn whenever two read the same number."""
    count = folder / "count"
    for _ in range(turns):
        with locked(folder, patience=60):
            before = int(count.read_text())
            time.sleep(0.001)
            count.write_text(str(before + 1))


def test_many_who_come_and_go_never_meet(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=take_turns, args=(tmp_path, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("elsewhere")])
def test_what_a_stranger_put_in_the_lock_s_place_is_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / ".lock")
    assert owner(tmp_path) is None
    with pytest.raises(UserError, match=r"\.lock: "), locked(tmp_path):
        pytest.fail("locked")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run: Not a directory"), locked(tmp_path / "file/run"):
        pytest.fail("locked")


def test_where_nothing_can_be_written_nothing_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with locked(tmp_path), locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        assert owner(tmp_path) is None
    assert caplog.messages == [
        f"{tmp_path}: this file system keeps no locks: start no second run here"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_removed_meanwhile_is_no_matter(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        (tmp_path / "run" / ".lock").unlink()
        with locked(tmp_path / "run"):  # another's, of a folder made anew
            pass
