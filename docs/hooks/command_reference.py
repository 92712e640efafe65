"""The reference of both programs: their help, as they print it."""

import io
import os
from contextlib import redirect_stdout, suppress
from unittest.mock import patch

from flowtrain.cli.flowrun import COMMANDS, execute
from flowtrain.cli.help import help_text

COLUMNS = "88"  # that argparse fills


def reference() -> str:
    """Return the page, in Markdown."""
    parts = [HEAD, "## flowtrain", block(help_text()), "## flowrun", block(flowrun_help())]
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        parts += [f"### flowrun {name}", block(flowrun_help(name))]
    return "\n\n".join(parts) + "\n"


def flowrun_help(*command: str) -> str:
    """Return what `flowrun COMMAND --help` prints."""
    printed = io.StringIO()
    with patch.dict(os.environ, COLUMNS=COLUMNS), redirect_stdout(printed), suppress(SystemExit):
        execute([*command, "--help"])
    return printed.getvalue()


def block(text: str) -> str:
    """Return a text as a block of code."""
    return f"```text\n{text.strip()}\n```"


HEAD = """\
# Commands

Two programs: `flowtrain` trains, `flowrun` works with what was trained. This page is their own
help.

Both exit with 0 only for success. A mistake is told in one line: `flowtrain` exits with 1,
`flowrun` with 1, or with 2 for an option that it does not know. A run that is interrupted exits
with 130 (Ctrl-C) or 143 (SIGTERM)."""
