"""Files from anywhere, read without trust: regular ones, of a bounded size, as plain data.

A run folder may come from a stranger. What is read from it lies in it, links included, does not
block, is not unfolded beyond what its bytes hold, and is never executed.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from flowtrain.errors import UserError

RECORD = 2**24  # bytes of a result.json or a config: a thousand times what a run writes
HISTORY = 2**30  # bytes of a metrics.jsonl: millions of lines
NESTED = 50  # levels of a config; a run's has five


def open_regular(path: Path, *, inside: Path | None = None, limit: int | None = None) -> BinaryIO:
    """Open a regular file to read; a pipe or a device, which may block for ever, is refused.

    Args:
        path: of the file.
        inside: the folder in which it must lie, whatever links lead to it; None for anywhere.
        limit: the most bytes it may have; None for any number.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it is no regular file, lies elsewhere, is too large or cannot be read.

    >>> (tmp_path / "numbers.txt").write_text("1 2 3")
    5
    >>> with open_regular(tmp_path / "numbers.txt", inside=tmp_path) as file:
    ...     file.read()
    b'1 2 3'
    >>> open_regular(Path("/dev/null"))
    Traceback (most recent call last):
        ...
    flowtrain.errors.UserError: /dev/null: this is no regular file
    """
    try:
        if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
            raise UserError(f"{path}: refused: it leads out of {inside}, to {path.resolve()}")
        # O_NONBLOCK: the opening of a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, UserError):
        raise
    except (OSError, RuntimeError) as error:  # before Python 3.13 a loop of links is the latter
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    found = os.fstat(descriptor)
    problem = "" if stat.S_ISREG(found.st_mode) else "this is no regular file"
    if limit is not None and found.st_size > limit:
        problem = f"{found.st_size:,} bytes are more than the {limit:,} that are read of it"
    if problem:
        os.close(descriptor)
        raise UserError(f"{path}: {problem}")
    return os.fdopen(descriptor, "rb")


def read_json(path: Path, *, inside: Path) -> Any:
    """Read a file of JSON in a run folder.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it cannot be read, or holds no JSON.

    >>> read_json(run_folder / "result.json", inside=run_folder)["status"]
    'completed'
    """
    with open_regular(path, inside=inside, limit=RECORD) as file:
        content = file.read()
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: it holds no JSON") from None


def read_records(path: Path, *, inside: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the lines of a run's metrics.jsonl, each a step, seconds and numbers by tag.

    Returns:
        The records, and the number of damaged lines. Half a line at the end is not one of them: it
        is being written, or was when its process died.

    Raises:
        UserError: the file cannot be read.

    >>> records, damaged = read_records(run_folder / "metrics.jsonl", inside=run_folder)
    >>> records[0]["step"], damaged
    (0, 0)
    >>> read_records(tmp_path / "metrics.jsonl", inside=tmp_path)  # none
    ([], 0)
    """
    try:
        with open_regular(path, inside=inside, limit=HISTORY) as file:
            *lines, last = file.read().split(b"\n")
    except FileNotFoundError:
        return [], 0
    records = [found for line in lines if (found := record(line)) is not None]
    damaged = len(lines) - len(records)
    whole = record(last)
    return records + ([] if whole is None else [whole]), damaged


def record(line: bytes) -> dict[str, Any] | None:
    """Return what a line of metrics.jsonl says; None if it is damaged, or not whole.

    >>> record(b'{"step": 3, "seconds": 0.5, "kl/val": null}')
    {'step': 3, 'seconds': 0.5, 'kl/val': None}
    >>> record(b'{"step": 3, "kl/val": "abc"}'), record(b'{"step": 3, "sec')
    (None, None)
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or type(content.get("step")) is not int:
        return None
    numbers = (is_number(v) or (v is None and key != "seconds") for key, v in content.items())
    return content if all(numbers) else None


def is_number(value: Any) -> bool:
    """Say whether a value is a number that float holds, or NaN; a boolean is none.

    >>> is_number(1), is_number(0.5), is_number(True), is_number("1"), is_number(10**400)
    (True, True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**63


def to_float(cell: Any) -> float:
    """Return a cell as a number; Python's own float reads 12_3 as 123.

    Raises:
        ValueError: it is a text that is no number.
        TypeError: it is nothing that is like a number.

    >>> to_float(" 1e3"), to_float(2)
    (1000.0, 2.0)
    """
    if isinstance(cell, str) and "_" in cell:
        raise ValueError(f"{cell!r} is no number")
    return float(cell)


def read_yaml(path: Path, *, inside: Path) -> Any:
    """Read a file of YAML in a run folder, without tags and aliases.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it cannot be read, or holds no plain YAML.

    >>> (tmp_path / "config.yaml").write_text("seed: 3")
    7
    >>> read_yaml(tmp_path / "config.yaml", inside=tmp_path)
    {'seed': 3}
    """
    import yaml  # not above: help need not wait for it

    class Plain(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
        """Refuses aliases: a few of them unfold to any size."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not read")
            return super().compose_node(parent, index)

    with open_regular(path, inside=inside, limit=RECORD) as file:
        content = file.read()
    try:
        return yaml.load(content, Plain)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        raise UserError(f"{path} is damaged: it holds no plain YAML") from None


def is_plain(content: Any, *, most: int = 10_000) -> bool:
    """Say whether data are nested containers of at most so many parts, all plain.

    A part that occurs twice counts twice: so nothing that is small as it is stored, and huge to
    whoever walks through it, is taken for a config.

    >>> is_plain({"seed": 3, "betas": [0.9, 0.999]}), is_plain({"seed": object()})
    (True, False)
    >>> bomb = [0] * 9
    >>> for _ in range(9):
    ...     bomb = [bomb] * 9
    >>> is_plain(bomb)
    False
    """
    kinds = (dict, list, tuple, str, int, float, bool, type(None))
    parts = _parts(content, 0)
    return all(
        position < most and depth < NESTED and type(part) in kinds
        for position, (part, depth) in enumerate(parts)
    )


def _parts(content: Any, depth: int) -> Iterator[tuple[Any, int]]:
    yield content, depth
    if depth < NESTED and isinstance(content, dict | list | tuple):
        if isinstance(content, dict):
            for key in content:
                yield key, depth
        for part in content.values() if isinstance(content, dict) else content:
            yield from _parts(part, depth + 1)
