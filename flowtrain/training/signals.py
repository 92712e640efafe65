"""SIGINT and SIGTERM end a run between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM, so that a step can end; a second one acts as usual."""
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)

    def remember(number: int, frame: object) -> None:
        caught.append(number)
        for each in signals:
            signal.signal(each, before[each])

    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return
    before = {each: signal.signal(each, remember) for each in signals}
    try:
        yield caught
    finally:
        for each in signals:
            signal.signal(each, before[each])
