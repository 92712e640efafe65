"""A user's mistake, told in one message: what was wrong, what is allowed, the nearest name."""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import MissingConfigException, OverrideParseException

from flowtrain.cli.keys import keys_of, known_keys, options_of
from flowtrain.config import CONF
from flowtrain.errors import UserError
from flowtrain.sweeps.plan import ELSEWHERE

# Of a folder of one's own, which may have other keys; and TAB completion, whose words are no keys.
GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment_on", "model_on"}
LEFT_TO_HYDRA = ("--config", "-c", "--shell-completion", "-sc")


def explain(error: BaseException, arguments: Sequence[str] | None = None) -> str:
    """Say what went wrong and what is allowed; for a mistyped name, the nearest one.

    Args:
        error: of Hydra, YAML, the disk or flowtrain.
        arguments: what was typed; None is the command line's.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    message = str(error)
    if isinstance(error, OverrideParseException):
        meant = [group for group in sorted(GROUPS) if error.override in options_of(group)]
        which = "; `flowtrain --help` has examples"
        if meant:
            which = f"; did you mean {meant[0]}={error.override}?"
        elif error.override in GROUPS:
            which = f"; name an option: {error.override}={options_of(error.override)[0]}"
        elif "=" in arguments:
            which = "; leave out the spaces around ="
        elif re.match(r"[\w.]+=[^'\"]*=", error.override):
            key, _, value = error.override.partition("=")
            which = f"; quote a value that has a = in it: \"{key}='{value}'\""
        elif error.override in commands_of_flowrun():
            which = f"; it is a command of flowrun: flowrun {' '.join(arguments)}"
        elif Path(error.override).is_dir():
            which = f"; to go on with a run, type resume={error.override}"
        return f"{error.override}: cannot be read as key=value{which}"
    if several := re.match("Ambiguous value for argument '([^=]+)=(.*)'", message):
        key, values = several.groups()
        return f"{key}: {values} is several values; -m makes a run of each, {key}=[{values}] a list"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        chosen = [arg for arg in arguments if arg.startswith("launcher=")]
        if group == "hydra/launcher" and chosen:
            extra = chosen[-1].partition("=")[2]
            return f"{chosen[-1]} is an extra: pip install 'flowtrain[{extra}]'"
        typed = next((arg for arg in reversed(arguments) if arg.startswith("data=")), "")
        if group.startswith("data") and Path(file := typed.removeprefix("data=")).suffix:
            return f"data: no option {file!r}; for a file type data=table data.path={file}"
        return f"{group}: no option {option!r}; {suggest(option, error.options)}"
    if absent := re.match(r"Interpolation key '([^']+)' not found", message):
        return f"{absent[1]}: missing from the config"
    if absent := re.match(r"Error resolving interpolation '(.*)', possible .* keys: (.*)", message):
        there = absent[2].split(", ")  # of a default whose option hangs on others
        gone = [key for key in re.findall(r"\$\{(\w+)\}", absent[1]) if key not in there]
        return f"{', '.join(gone)}: missing from the config"
    if unknown := re.match(r"Could not override '([^']+)'", message):
        return unknown_key(unknown[1], known_keys(arguments))
    if (refused := re.match("Error merging override (.*)", message)) and error.__cause__:
        return f"{refused[1]}: {str(error.__cause__).splitlines()[0]}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}"  # an open file does not tell
    hydra_only = ("See https:", "    full_key: ", "    object_type=")
    return "\n".join(line for line in message.splitlines() if not line.startswith(hydra_only))


def commands_of_flowrun() -> list[str]:
    """Return the names of the commands of flowrun, the other program.

    >>> commands_of_flowrun()[:2]
    ['list', 'evaluate']
    """
    from flowtrain.cli.flowrun import COMMANDS  # slow to import, and needed after a mistake alone

    return [command.__name__.rpartition(".")[2] for command in COMMANDS]


def suggest(name: str, known: Sequence[str]) -> str:
    """Offer the names closest to an unknown one, or point to all of them."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.75)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if len(known) <= 24:
        return f"choose from {', '.join(known)}"
    return "`flowtrain --cfg job` shows every key"


def refuse_unknown_keys(arguments: Sequence[str]) -> None:
    """Refuse a mistyped key in half the time that Hydra takes to compose a config and find out.

    Raises:
        UserError: a key that no option of its group has, or one with dashes before it.
    """
    for argument in arguments:
        key, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and key in known_keys([]):
            raise UserError(f"{argument}: a setting has no dashes; type {key}={value or '...'}")
    if any(argument.startswith(LEFT_TO_HYDRA) for argument in arguments):
        return
    known: list[str] = []
    for argument in arguments:
        key, given, _ = argument.partition("=")
        if given and re.fullmatch(r"[A-Za-z_][\w.]*", key) and not key.startswith("hydra."):
            known = known or known_keys(arguments)
            if key not in known:
                raise UserError(unknown_key(key, known))


def refuse_two_folders(arguments: Sequence[str]) -> None:
    """Refuse a folder for a run that goes on in its own.

    Raises:
        UserError: as said.
    """
    if {"resume", "hydra.run.dir"} <= {argument.partition("=")[0] for argument in arguments}:
        raise UserError("resume: a run goes on in its own folder: leave hydra.run.dir out")


def refuse_what_sweeps_have(arguments: Sequence[str]) -> None:
    """Refuse what says where and how the jobs of a sweep run, of a single run.

    Raises:
        UserError: as said.
    """
    if {"-m", "--multirun", "--cfg", "-c"} & {*arguments}:
        return
    for argument in arguments:
        if argument.partition("=")[0] in ELSEWHERE:
            raise UserError(f"{argument}: it is for many runs: add -m, or leave it out")


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Say that there is no such key, and which one may have been meant."""
    if key in known:  # an option that is not chosen has it
        group, _, name = key.rpartition(".")
        files = sorted((CONF / group.rpartition(".")[2]).glob("*.yaml"))
        having = ", ".join(file.stem for file in files if name in keys_of(file))
        return f"{key}: no key of the chosen {group}, but of {having}"
    return f"{key}: no such key; {suggest(key, known)}"
