"""The command `flowrun`: the parser, one name a command.

Nothing heavy is imported here: help and a mistyped option stay fast.
"""

import argparse
import contextvars
import difflib
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from flowtrain import __version__
from flowtrain.cli import (
    animate,
    compare,
    completion,
    diagnose,
    evaluate,
    export,
    plot,
    sample,
    score,
    status,
    steps,
)
from flowtrain.cli import list as list_runs
from flowtrain.cli.streams import mend_streams
from flowtrain.errors import UserError
from flowtrain.text import one_line

# Each module has a SUMMARY, add_options(parser) and run(options); its name is the command's.
COMMANDS = (
    list_runs,
    evaluate,
    diagnose,
    sample,
    score,
    steps,
    compare,
    status,
    plot,
    animate,
    export,
    completion,
)


class Parser(argparse.ArgumentParser):
    """A parser that explains a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        if unknown := re.fullmatch(r"(.*: invalid choice: '(.*)') \(choose from (.*)\)", message):
            told, typed, choices = unknown.groups()
            near = difflib.get_close_matches(typed, re.findall(r"[\w.-]+", choices), n=1)
            message = f"{told}, did you mean '{near[0]}'" if near else message
        self.exit(2, f"flowrun: {message}; see {self.prog} --help\n")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Refuse arguments that are none of this parser's, with the nearest option of the first."""
        known = [name for action in self._actions for name in action.option_strings]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f", did you mean {near[0]}" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


class _OneLine(logging.Formatter):
    """Writes a record in one line that a terminal may show."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def main() -> None:
    """Run the command line; exit 0 only for success, and explain a mistake in one line."""
    mend_streams()
    warnings = logging.StreamHandler()
    warnings.setFormatter(_OneLine("flowrun: warning: %(message)s"))
    logging.basicConfig(handlers=[warnings], level=logging.WARNING)
    # As after Ctrl-C, a file that is half written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    try:
        if arguments[:1] == [completion.ASKED]:
            completion.answer(arguments[1:])
            return 0
        parser = build_parser()
        options, unknown = parser.parse_known_args(arguments)
        if unknown:
            (options.parser or parser).refuse(unknown)
        if options.run_command is None:
            parser.print_help()
            return 0
        contextvars.copy_context().run(options.run_command, options)  # what it sets ends with it
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"flowrun: {one_line(str(error))}\n")
        return 1
    except OSError as error:  # the disk or the network, no defect
        if error.filename is None:  # it was standard output: what is left in its buffer is lost
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader, `head` say, has seen enough
            where = error.filename or "standard output"
            sys.stderr.write(f"flowrun: {one_line(f'{where}: {error.strerror or error}')}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("flowrun: interrupted\n")
        return 128 + signal.SIGINT
    return 0


def build_parser() -> Parser:
    """Return the parser; `run_command` of its result carries out the chosen command."""
    parser = Parser(
        prog="flowrun",
        description="Use trained flows: everything comes from the folder of a run.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"flowrun {__version__}")
    parser.set_defaults(run_command=None, parser=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in COMMANDS:
        name, summary = module.__name__.rpartition(".")[2], module.SUMMARY
        about = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=about, allow_abbrev=False)
        command.set_defaults(run_command=module.run, parser=command)
        module.add_options(command)
    return parser


if __name__ == "__main__":
    main()
