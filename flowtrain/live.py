"""The console while work lasts: a line that moves in a terminal, elsewhere lines at intervals."""

import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from flowtrain.progress import listening
from flowtrain.text import visible

log = logging.getLogger("flowtrain")

SECONDS_BETWEEN_LINES = (5.0, 60.0)
WIDEST_BAR, LEAST_BAR = 24, 4  # columns
NARROWEST = 20  # columns of a terminal in which a line moves
NOTEBOOK = 80  # columns; rich takes 115 there, which do not fit beside a table of contents


@dataclass(frozen=True)
class _State:
    """What is known of a piece of work, and when it was heard."""

    what: str
    since: float  # it began
    at: float  # the last time it was heard
    fraction: float = 0.0
    first: float = 0.0  # the fraction at which it began
    details: tuple[str, ...] = ()
    left: float | None = None  # seconds, from `at` on


class _Line:
    """What is known of the work, as one line of any width.

    Work without a name is what the program is there for: it goes on after work that has one, and
    the time it has left is estimated.

    Args:
        say: takes a line now and then, without its end.
        seconds: between lines, at first and at last: the interval doubles.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        seconds: tuple[float, float] = SECONDS_BETWEEN_LINES,
    ) -> None:
        now = time.monotonic()
        self.say = say
        self.state = _State("", since=now, at=now)
        self.main: _State | None = None  # the last of the work without a name
        self.interval, self.longest = seconds
        self.silent_until = now + self.interval

    def hear(self, what: str, fraction: float, details: tuple[str, ...]) -> None:
        """Take note of how far the work is."""
        now = time.monotonic()
        known = self.state if what else self.main
        if known is None or known.what != what:
            known = _State(what, since=now, at=now, first=fraction)
            if not what:  # the first sign of it is a line at once
                self.silent_until = now
        left = known.left
        if not what and details and fraction > known.first:
            left = (now - known.since) * (1 - fraction) / (fraction - known.first)
        elif left is not None:
            left = max(0.0, left - (now - known.at))
        details = details or known.details
        self.state = replace(known, at=now, fraction=fraction, details=details, left=left)
        if not what:
            self.main = self.state
        if now >= self.silent_until and (what or details):
            self.say(f"{fraction:4.0%}  {self.text(1000)}")
            self.silent_until = now + self.interval
            self.interval = min(2 * self.interval, self.longest)

    def text(self, width: int) -> str:
        """Return the line without its bar, at most so wide: the least important is left out."""
        state, now = self.state, time.monotonic()
        if state.left is None:
            clock = _clock(now - state.since)
        else:
            clock = f"{_clock(max(0.0, state.left - (now - state.at)))} left"
        pieces = [*([state.what] if state.what else []), *state.details]
        return fitted(pieces, clock, width)

    def __rich_console__(self, console: Console, _: object) -> Iterator[Table]:
        room = console.width - 1  # a full last column makes some terminals wrap
        text = self.text(room - LEAST_BAR - 1)
        fraction = self.state.fraction
        bar = ProgressBar(
            total=1.0,
            completed=fraction,
            width=max(LEAST_BAR, min(WIDEST_BAR, room - cell_len(text) - 1)),
            pulse=fraction == 0.0,
            animation_time=time.monotonic(),
        )
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_row(bar, text)
        yield grid


def fitted(pieces: Sequence[str], last: str, width: int) -> str:
    """Join pieces, and what always stands last, in a line at most so wide.

    Args:
        pieces: the most important first; the last ones are left out, and a first one that is too
            long is cut.
        last: stays whole.
        width: in columns of a terminal.

    >>> fitted(["12/20", "KL 0.0312", "loss 2.41"], "0:03", 40)
    '12/20  KL 0.0312  loss 2.41  0:03'
    >>> fitted(["12/20", "KL 0.0312", "loss 2.41"], "0:03", 24)
    '12/20  KL 0.0312  0:03'
    >>> fitted(["evaluating, test points"], "0:03", 20)
    'evaluating, t…  0:03'
    """
    kept = list(pieces)
    while len(kept) > 1 and cell_len("  ".join([*kept, last])) > width:
        kept.pop()
    room = max(1, width - cell_len(last) - 2)
    if kept and cell_len("  ".join(kept)) > room:
        kept = [set_cell_size(kept[0], room - 1) + "…"]
    return "  ".join([*kept, last])


def can_move(console: Console) -> bool:
    """Return whether a line can move on a console: a terminal that can, or a notebook.

    >>> import io
    >>> can_move(Console(file=io.StringIO()))
    False
    """
    if console.is_jupyter:  # no terminal, but its widgets move
        return find_spec("ipywidgets") is not None
    return console.is_interactive and console.width >= NARROWEST


@contextmanager
def shown(
    console: Console,
    say: Callable[[str], None],
    *,
    moving: bool = True,
    seconds: tuple[float, float] = SECONDS_BETWEEN_LINES,
) -> Iterator[None]:
    """Show how far the work inside is.

    Args:
        console: where a line moves, if that is a terminal.
        say: takes a line of text now and then, wherever the console is.
        moving: False where others write to the same terminal.
        seconds: between lines of text, at first and at last: the interval doubles.
    """
    line = _Line(say, seconds)
    with listening(line.hear):
        if not (moving and can_move(console)):
            yield
            return
        # What others print goes above the line, if it goes to this terminal and nowhere else.
        with Live(
            get_renderable=lambda: line, console=console, refresh_per_second=5, transient=True,
            redirect_stdout=not (console.stderr or console.is_jupyter),
            redirect_stderr=sys.stderr.isatty(),
        ):  # fmt: skip
            yield


class _ConsoleHandler(logging.Handler):
    """Shows log records as plain lines, above the line that moves if there is one.

    Once nobody reads them, as `| head -1` has seen enough, the run ends as after SIGTERM; one that
    has not begun, and so does not wait for signals yet, by the error itself.
    """

    def __init__(self, console: Console, *, moving: bool, prefix: str) -> None:
        super().__init__()
        self.unread = False
        self.console, self.moving, self.prefix = console, moving, prefix

    def emit(self, record: logging.LogRecord) -> None:
        if self.unread or (self.moving and getattr(record, "progress", False)):
            return
        text = visible(f"{self.prefix}{record.getMessage()}")
        if self.console.is_jupyter:  # rich would make each line an output of its own, far apart
            print(text)
            return
        try:
            self.console.print(text, markup=False, soft_wrap=True)
        except (BrokenPipeError, SystemExit):  # rich turns the one into the other
            self.unread = True
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def console_lines(*, moving: bool = True, prefix: str = "") -> Iterator[None]:
    """Show on standard output how far the work inside is, and the lines of the log.

    What moves in a terminal goes to the log as lines at intervals. Lines that other threads log are
    not shown.

    Args:
        moving: False where other processes write to the same terminal.
        prefix: of each line of the log.
    """
    console = Console(highlight=False)
    if console.is_jupyter:
        console.width = NOTEBOOK
    moving = moving and can_move(console)
    handler = _ConsoleHandler(console, moving=moving, prefix=prefix)
    with (
        handling(handler),
        shown(console, lambda line: log.info(line, extra={"progress": True}), moving=moving),
    ):
        yield


@contextmanager
def handling(handler: logging.Handler) -> Iterator[None]:
    """Give a handler what this thread logs inside.

    >>> with handling(logging.NullHandler()):
    ...     log.isEnabledFor(logging.INFO)
    True
    """
    thread = threading.get_ident()
    handler.addFilter(lambda record: record.thread == thread)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _clock(seconds: float) -> str:
    """Write seconds as 0:07, 12:31 or 1:02:03.

    >>> _clock(7.9), _clock(751), _clock(3723)
    ('0:07', '12:31', '1:02:03')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
