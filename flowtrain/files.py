"""Files written whole or not at all, and names of files refused before the work."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from flowtrain.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is written whole, and on the disk.

    A failure keeps the file that was there, and leaves nothing else.

    >>> with replacing(tmp_path / "numbers.txt") as file:
    ...     _ = file.write(b"1 2 3")
    >>> (tmp_path / "numbers.txt").read_text()
    '1 2 3'
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


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
