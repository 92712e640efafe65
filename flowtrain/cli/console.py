"""What `flowrun` shows in a terminal: tables that are never cut, and how far it is."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowtrain.live import can_move, shown
from flowtrain.progress import done
from flowtrain.text import one_line

T = TypeVar("T")

UNBROKEN = 1000  # columns where there is no terminal
SECONDS = (30.0, 300.0)  # between lines that say how far it is, where no line can move


def print_table(
    header: list[str], rows: Iterable[list[str]], *, left: int, title: str = ""
) -> None:
    """Print a table, its first columns flush left, never cut; cells may hold rich's markup."""
    console, table = _console(), Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    lines = _texts(rows)
    for position, (name, *cells) in enumerate(zip(header, *lines, strict=True)):
        widest = max(cell.cell_len for cell in cells)  # where space is short, headers are folded
        side: Literal["left", "right"] = "left" if position < left else "right"
        table.add_column(Text(one_line(name)), justify=side, overflow="fold", min_width=widest)
    for line in lines:
        table.add_row(*line)
    if title:
        console.print(one_line(title), markup=False, soft_wrap=True)
    # A terminal breaks lines that are longer than it; rich would drop their ends.
    least = console.measure(table, options=console.options.update(max_width=UNBROKEN)).minimum
    console.print(table, width=max(least, console.width), crop=False)


def print_stacked(header: list[str], rows: Iterable[list[str]], *, left: int) -> None:
    """Print the settings of each row as one types them, and its figures on a line below.

    Args:
        header: keys and the names of the figures.
        rows: values and figures; they may hold rich's markup.
        left: how many are keys.
    """
    console, lines = _console(), _texts(rows)
    above = ["", *(_typed(header, line[:left]) for line in lines)]
    figures = [[Text(name) for name in header[left:]], *(line[left:] for line in lines)]
    widths = [max(cell.cell_len for cell in column) for column in zip(*figures, strict=True)]
    for settings, cells in zip(above, figures, strict=True):
        if settings:
            console.print(Text(settings))
        for cell, width in zip(cells, widths, strict=True):
            cell.align("right", width)
        console.print(Text("  ").join([Text(), *cells]))


def fits(header: list[str], rows: Iterable[list[str]]) -> bool:
    """Return whether a table has the room to stand on standard output with whole headers."""
    columns = zip(map(Text, header), *_texts(rows), strict=True)
    widths = [1 + max(cell.cell_len for cell in column) for column in columns]
    return bool(sum(widths) < _console().width)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else UNBROKEN)


def _texts(rows: Iterable[list[str]]) -> list[list[Text]]:
    return [[Text.from_markup(cell) for cell in row] for row in rows]


def _typed(keys: list[str], values: list[Text]) -> str:
    return " ".join(f"{key}={value}" for key, value in zip(keys, values, strict=False))


@contextmanager
def working(*, quiet: bool = False) -> Iterator[None]:
    """Show on standard error how far the work inside is; where no line can move, now and then.

    Args:
        quiet: True where the work itself fills the terminal.
    """
    console = Console(stderr=True, highlight=False)
    moving = not quiet and can_move(console)
    with shown(console, _unsaid if moving else say, moving=moving, seconds=SECONDS):
        yield


def counted(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Yield items, and tell how many of them are done."""
    for number, item in enumerate(items, start=1):
        yield item
        done(number / total, f"{unit} {number:,} of {total:,}")


def _unsaid(_: str) -> None:
    """Say nothing: the line that moves tells it already."""


def say(line: str) -> None:
    """Say on standard error what a command did: standard output is for what it found."""
    sys.stderr.write(f"flowrun: {line}\n")
