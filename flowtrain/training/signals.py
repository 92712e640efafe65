"""SIGINT and SIGTERM end a run between two steps, a second one at once."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("flowtrain")


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM, so that a step or an evaluation can end.

    A second one raises KeyboardInterrupt or SystemExit, wherever the program is. Outside the main
    thread, which alone may handle signals, nothing is collected.

    >>> with catch_signals() as caught:
    ...     signal.raise_signal(signal.SIGINT)
    ...     caught == [signal.SIGINT]
    True
    """
    caught: list[int] = []

    def remember(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        if caught:
            sys.exit(128 + number)
        caught.append(number)
        log.info("stopping after this step or evaluation; once more to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {each: signal.signal(each, remember) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
