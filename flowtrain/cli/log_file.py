"""The log of a run: lines that a terminal may show, in a file that is no link."""

import io
import logging

from flowtrain.files import appending
from flowtrain.text import visible


class LogFile(logging.FileHandler):
    """Writes flowtrain.log; it is opened with the first line.

    Where it cannot be written, on a read-only disk say, the run goes on without: what the run must
    write, it refuses by itself.
    """

    def __init__(self, filename: str) -> None:
        super().__init__(filename, delay=True)
        self.closed_for_good = False

    def _open(self) -> io.TextIOWrapper:
        return appending(self.baseFilename)

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if the file can be written."""
        if self.closed_for_good:
            return
        try:
            super().emit(record)
        except OSError:
            self.closed_for_good = True
