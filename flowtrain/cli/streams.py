"""Standard streams that no message can break: closed ones, and ones that lack a letter."""

import io
import os
import sys


def mend_streams() -> None:
    """Let output go nowhere where it is closed, and write as an escape what it has no letter for.

    A closed stream would hand its number to the next file that is opened, a checkpoint say, into
    which whatever writes to the standard output of a process would then write.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and mode == "w":
            stream.reconfigure(errors="backslashreplace")
