"""Files that a user names for results: refused before the work, written whole or not at all."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flowtrain.checkpoint import replacing
from flowtrain.errors import UserError


def check_output(path: Path, suffixes: Iterable[str]) -> None:
    """Refuse a path that cannot become a file, before the work that would fill it.

    Raises:
        UserError: the suffix is another, or what is there is no file.
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
    """
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
