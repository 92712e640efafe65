"""A folder's lock: one process at a time writes there, and the lock dies with its owner."""

import errno
import fcntl
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowtrain.errors import UserError

log = logging.getLogger("flowtrain")

NAME = ".lock"
PATIENCE = 2.0  # seconds: a process that is just ending, or `owner` asking, is no reason to fail
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # Lustre without -o flock, some FUSE


class LockedError(UserError):
    """Another process is at work in the folder."""


@contextmanager
def locked(folder: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Keep every other process from working in a folder, which is made if it is not there.

    The kernel holds the lock (flock; over NFS it is the server's) and lets go when the process
    ends, however it ends. The file `.lock` names the owner, and goes when the work is done. A
    folder that cannot be written is not locked; a file system that has no locks is warned about.

    Args:
        folder: of a run or a sweep.
        patience: seconds to wait for another process to end.

    Raises:
        LockedError: another process holds the lock; names its process id and its host.
        UserError: `.lock` is no regular file, or another user's.

    >>> with locked(tmp_path):
    ...     owner(tmp_path) == f"process {os.getpid()} on {socket.gethostname()}"
    True
    >>> owner(tmp_path) is None
    True
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):  # nor can anything be damaged there
        yield
        return
    until = time.monotonic() + patience
    while (handle := _acquire(path)) is None:
        if time.monotonic() > until:
            raise LockedError(f"{folder}: {owner(folder) or 'another process'} is at work there")
        time.sleep(0.05)
    try:
        yield
    finally:
        if _is_at(handle, path):
            with suppress(OSError):
                path.unlink()  # before it is let go: no one may lock what is no longer there
        os.close(handle)


def owner(folder: Path) -> str | None:
    """Say which process is at work in a folder; None if none is.

    >>> owner(tmp_path) is None
    True
    """
    try:
        handle = os.open(folder / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(handle, 200).decode(errors="replace").strip() or "another process"
    except OSError:  # no locks there: nothing is known
        pass
    finally:
        os.close(handle)
    return None


def _acquire(path: Path) -> int | None:
    """Return the open, locked file; None if another process has it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error
    taken = False
    try:
        taken = _lock(handle, path)
    finally:
        if not taken:
            os.close(handle)
    return handle if taken else None


def _lock(handle: int, path: Path) -> bool:
    """Lock an open file and write our name there; False if another process has it."""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise UserError(f"{path}: this is no regular file")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise UserError(f"{path}: cannot be locked: {error.strerror}") from error
        log.warning("%s: this file system keeps no locks: start no second run here", path.parent)
    if not _is_at(handle, path):  # its owner has just removed it; the next try makes a new one
        return False
    with suppress(OSError):  # of a full disk: the name is a comfort, the lock is held
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False
