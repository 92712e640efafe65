"""What `flowrun` shows in a terminal: tables that are never cut, and how far it is."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowtrain.live import shown
from flowtrain.progress import done
from flowtrain.text import one_line

T = TypeVar("T")

SECONDS = (30.0, 300.0)  # between lines that say how far it is, where no line can move


def print_table(
    header: list[str], rows: Iterable[list[str]], *, left: int, title: str = ""
) -> None:
    """Print a table, its first columns flush left, never cut; cells may hold rich's markup."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    lines = [[Text.from_markup(cell) for cell in row] for row in rows]
    for position, (name, *cells) in enumerate(zip(header, *lines, strict=True)):
        widest = max(cell.cell_len for cell in cells)  # where space is short, headers are folded
        side: Literal["left", "right"] = "left" if position < left else "right"
        table.add_column(Text(one_line(name)), justify=side, overflow="fold", min_width=widest)
    for line in lines:
        table.add_row(*line)
    if title:
        console.print(one_line(title), markup=False, soft_wrap=True)
    # A terminal breaks lines that are longer than it; rich would drop their ends.
    least = console.measure(table, options=console.options.update(max_width=1000)).minimum
    console.print(table, width=max(least, console.width), crop=False)


@contextmanager
def working(*, quiet: bool = False) -> Iterator[None]:
    """Show on standard error how far the work inside is; where no line can move, now and then.

    Args:
        quiet: True where the work itself fills the terminal.
    """
    console = Console(stderr=True, highlight=False)
    with shown(console, say, moving=not quiet, seconds=SECONDS):
        yield


def counted(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Yield items, and tell how many of them are done."""
    for number, item in enumerate(items, start=1):
        yield item
        done(number / total, f"{unit} {number:,} of {total:,}")


def say(line: str) -> None:
    """Say on standard error what a command did: standard output is for what it found."""
    sys.stderr.write(f"flowrun: {line}\n")
