"""What `flowrun` shows in a terminal: tables that are never cut, and a bar."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from rich import box, progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

T = TypeVar("T")


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
        table.add_column(name, justify=side, overflow="fold", min_width=widest)
    for line in lines:
        table.add_row(*line)
    if title:
        console.print(title, markup=False, soft_wrap=True)
    # A terminal breaks lines that are longer than it; rich would drop their ends.
    least = console.measure(table, options=console.options.update(max_width=1000)).minimum
    console.print(table, width=max(least, console.width), crop=False)


def with_bar(items: Iterable[T], total: int, path: Path | None) -> Iterator[T]:
    """Yield items while a bar on standard error, where that is a terminal, shows their progress."""
    import torch  # not above: other commands only need the tables

    console = Console(stderr=True)
    busy = path is None and sys.stdout.isatty()  # the rows scroll by themselves
    with progress.Progress(
        *progress.Progress.get_default_columns(),
        console=console,
        disable=busy or not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total)
        for item in items:
            yield item
            bar.advance(task, len(item) if isinstance(item, torch.Tensor) else 1)
