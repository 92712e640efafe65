"""Signals that ask a run to stop end it between two steps; a second one ends it at once."""

import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

log = logging.getLogger("flowtrain")

# Ctrl-C, kill, a terminal that is closed, and the two that batch systems send before the end.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PREEMPTED_WITHIN = 600.0  # seconds that Slurm may take to end a job it has sent SIGTERM


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect the first signal that asks to stop, so that a step or an evaluation can end.

    A second one raises KeyboardInterrupt or SystemExit, wherever the program is; but not Slurm's,
    which tells a job that it preempts twice, and kills it by itself. Outside the main thread,
    which alone may handle signals, nothing is collected; nor is SIGHUP under `nohup`.

    >>> with catch_signals() as caught:
    ...     signal.raise_signal(signal.SIGINT)
    ...     caught == [signal.SIGINT]
    True
    """
    caught: list[int] = []

    def remember(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        if caught and under_slurm():
            return
        if caught:
            sys.exit(128 + number)
        caught.append(number)
        if number == signal.SIGHUP:
            leave_closed_terminal()
        at_once = "" if under_slurm() else "; once more to stop at once"
        log.info("stopping after this step or evaluation%s", at_once)

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signals = [each for each in STOPPING if each != signal.SIGHUP or not nohup]
    before = {each: signal.signal(each, remember) for each in signals}
    try:
        yield caught
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def leave_closed_terminal() -> None:
    """Send to nowhere what would go to a terminal that is closed: each line would be an error."""
    for stream in (1, 2):
        with suppress(OSError):
            is_device = stat.S_ISCHR(os.fstat(stream).st_mode)
            if is_device and not os.isatty(stream):  # it is one no more
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def pass_on(number: int) -> None:
    """Let a batch system act on a signal, now that everything is saved.

    SIGUSR1 and SIGUSR2 go to the handler that was there before the run: submitit's requeues the
    job and ends the process. After SIGTERM Slurm calls a job that leaves by itself failed, and one
    that it has to kill preempted: only that one is requeued. So the process waits to be killed.

    Args:
        number: of the signal that ended the run.
    """
    if number in (signal.SIGUSR1, signal.SIGUSR2) and callable(signal.getsignal(number)):
        signal.raise_signal(signal.Signals(number))
    if number == signal.SIGTERM and under_slurm():
        log.info("saved; Slurm may now end this job, and start it again if it was preempted")
        time.sleep(PREEMPTED_WITHIN)


def under_slurm() -> bool:
    """Return whether this process is a job of Slurm's."""
    return "SLURM_JOB_ID" in os.environ
