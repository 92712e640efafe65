"""How far long work has come: told by whoever does it, shown by whoever listens, as a log is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

# Takes what is being done, how much of it in [0, 1], and details, the most important first.
Listener = Callable[[str, float, tuple[str, ...]], None]


@dataclass(frozen=True)
class _Work:
    """What is being done, and the part of it that whoever tells next works on."""

    listener: Listener
    what: str = ""
    start: float = 0.0
    share: float = 1.0


_current: ContextVar[_Work | None] = ContextVar("work", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear of all work inside.

    >>> with listening(lambda what, fraction, _: print(f"{what}: {fraction:.0%}")):
    ...     with doing("evaluating"), doing("test points"):
    ...         with part(0.5, 1.0):
    ...             done(0.5)
    evaluating: 0%
    evaluating, test points: 0%
    evaluating, test points: 50%
    evaluating, test points: 75%
    evaluating, test points: 100%
    """
    with _within(_Work(listener)):
        yield


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Name the work inside; it counts from 0 to 1. Work inside work has the names of both.

    >>> with doing("drawing"):  # nobody listens
    ...     done(0.5)
    """
    outer = _current.get()
    if outer is None:
        yield
        return
    with _within(_Work(outer.listener, f"{outer.what}, {what}".removeprefix(", "))):
        done(0.0)
        yield


@contextmanager
def part(start: float, end: float) -> Iterator[None]:
    """Count the work inside as the part of the current work from `start` to `end`, in [0, 1].

    >>> with listening(lambda what, fraction, _: print(f"{fraction:.1f}")), part(0.2, 0.4):
    ...     done(0.5)
    0.2
    0.3
    0.4
    """
    outer = _current.get()
    if outer is None:
        yield
        return
    share = outer.share * (end - start)
    with _within(_Work(outer.listener, outer.what, outer.start + outer.share * start, share)):
        done(0.0)
        yield
        done(1.0)


def done(fraction: float, *details: str) -> None:
    """Tell how much of the current work is done, in [0, 1], and what else there is to say.

    >>> with listening(print), doing("training"):
    ...     done(0.5, "step 3/6", "loss 2.41")
    training 0.0 ()
    training 0.5 ('step 3/6', 'loss 2.41')
    """
    work = _current.get()
    if work is not None:
        work.listener(work.what, work.start + work.share * fraction, details)


def heard() -> bool:
    """Return whether anybody listens; if not, what would be told need not be computed.

    >>> heard()
    False
    """
    return _current.get() is not None


@contextmanager
def _within(work: _Work) -> Iterator[None]:
    before = _current.set(work)
    try:
        yield
    finally:
        _current.reset(before)
