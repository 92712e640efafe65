"""Files written whole or not at all, and names of files and folders refused before the work."""

import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from flowtrain.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is written whole, and on the disk.

    A failure keeps the file that was there, and leaves nothing else. What is written into is a new
    file of a name that nobody can foresee, so that no link is ever followed; a link at `path` is
    replaced itself. Once this returns, the file and its name survive a loss of power.

    >>> with replacing(tmp_path / "numbers.txt") as file:
    ...     _ = file.write(b"1 2 3")
    >>> (tmp_path / "numbers.txt").read_text()
    '1 2 3'
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, new, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk, where its file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what `replacing` left in a folder when its process was killed.

    Only for a folder that no other process writes to.

    >>> (tmp_path / "last.pt.0123abcd.tmp").touch()
    >>> remove_leftovers(tmp_path)
    >>> list(tmp_path.iterdir())
    []
    """
    for path in folder.glob(f"*.{'[0-9a-f]' * 8}.tmp"):
        path.unlink()


def appending(path: str | Path) -> io.TextIOWrapper:
    """Open a text file to add lines to; a link in its place is refused, not followed.

    Raises:
        OSError: it is a link, or cannot be written.

    >>> with appending(tmp_path / "lines.txt") as file:
    ...     _ = file.write("one\\n")
    >>> (tmp_path / "lines.txt").read_text()
    'one\\n'
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return io.TextIOWrapper(os.fdopen(os.open(path, flags, 0o666), "ab"), encoding="utf-8")


def json_text(content: Any, *, indent: int | None = None) -> str:
    """Return JSON that every reader takes: NaN and infinity, which JSON has not, become null.

    >>> json_text({"kl/test": 0.5, "nll/test": float("nan")})
    '{"kl/test": 0.5, "nll/test": null}'
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def check_output(path: Path, suffixes: Iterable[str]) -> None:
    """Refuse a path that cannot become a file, before the work that would fill it.

    Raises:
        UserError: the suffix is another, or what is there is no file.

    >>> check_output(Path("table.csv"), [".csv", ".md"])
    >>> check_output(Path("table.txt"), [".csv", ".md"])
    Traceback (most recent call last):
        ...
    flowtrain.errors.UserError: table.txt: .txt is unknown; use .csv, .md
    """
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    if path.suffix.lower() not in suffixes:
        found = f"{path.suffix} is unknown" if path.suffix else "a suffix is missing"
        raise UserError(f"{path}: {found}; use {', '.join(suffixes)}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: this is no regular file; name another")


def check_folder(path: Path) -> None:
    """Refuse a folder that is not there.

    Raises:
        UserError: says what is there instead.

    >>> check_folder(tmp_path)
    >>> check_folder(Path("nowhere"))
    Traceback (most recent call last):
        ...
    flowtrain.errors.UserError: nowhere: no such folder
    """
    if not path.is_dir():
        raise UserError(f"{path}: {'a file, no folder' if path.exists() else 'no such folder'}")


@contextmanager
def leaving_no_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that the work makes, and those around it, if nothing was written there.

    >>> with leaving_no_empty(tmp_path / "day" / "time"):
    ...     (tmp_path / "day" / "time").mkdir(parents=True)
    >>> [*tmp_path.iterdir()]
    []
    """
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    finally:
        for each in new:
            with suppress(OSError):  # it holds something
                each.rmdir()


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is written whole.

    Raises:
        UserError: the disk is full or the folder cannot be written.

    >>> with writing(tmp_path / "new" / "numbers.txt") as file:
    ...     _ = file.write(b"1 2 3")
    >>> [path.name for path in (tmp_path / "new").iterdir()]
    ['numbers.txt']
    """
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
