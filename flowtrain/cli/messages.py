"""A user's mistake, told in one message: what was wrong, what is allowed, the nearest name."""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import MissingConfigException, OverrideParseException

from flowtrain.cli.keys import INNER, keys_of, known_keys, options_of
from flowtrain.config import CONF
from flowtrain.errors import UserError

GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()} - {*INNER}


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
        return _unreadable(error.override, arguments)
    if several := re.match("Ambiguous value for argument '([^=]+)=(.*)'", message):
        key, values = several.groups()
        if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", values):
            return f"{key}: {values} is several values; for one write {values.replace(',', '')}"
        if re.fullmatch(r"\d+,0\d+", values):
            return (
                f"{key}: {values} is two values; a decimal has a point: {values.replace(',', '.')}"
            )
        return f"{key}: {values} is several values; -m makes a run of each, {key}=[{values}] a list"
    if isinstance(error, MissingConfigException) and error.options:
        return no_option(str(error.missing_cfg_file), error.options, arguments)
    if absent := re.match(r"Interpolation key '([^']+)' not found", message):
        return f"{absent[1]}: missing from the config"
    if absent := re.match(r"Error resolving interpolation '(.*)', possible .* keys: (.*)", message):
        there = absent[2].split(", ")  # of a default whose option hangs on others
        gone = [key for key in re.findall(r"\$\{(\w+)\}", absent[1]) if key not in there]
        return f"{', '.join(gone)}: missing from the config"
    if unknown := re.match(r"Could not override '([^']+)'", message):
        return unknown_key(unknown[1], known_keys(arguments))
    if re.match("Multiple values for|force-add of config groups|Could not append", message):
        added = [each for each in arguments if each.startswith("+") and "=" in each]
        there = [each for each in added if each.lstrip("+").partition("=")[0] in message]
        if there:
            return f"{there[0]}: it has a value already; type {there[0].lstrip('+')}"
    if (refused := re.match("Error merging override (.*)", message)) and error.__cause__:
        return f"{refused[1]}: {str(error.__cause__).splitlines()[0]}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}"  # an open file does not tell
    hydra_only = ("See https:", "    full_key: ", "    object_type=")
    return "\n".join(line for line in message.splitlines() if not line.startswith(hydra_only))


def _unreadable(override: str, arguments: Sequence[str]) -> str:
    """Say of what is no key=value what may have been meant."""
    which = "; `flowtrain --help` has examples"
    beyond = arguments[arguments.index(override) + 1 :] if override in arguments else []
    meant = [group for group in sorted(GROUPS) if override in options_of(group)]
    if meant:
        which = f"; did you mean {meant[0]}={override}?"
    elif override in GROUPS and beyond and beyond[0] in options_of(override):
        which = f"; type {override}={beyond[0]}"
    elif override in GROUPS:
        which = f"; name an option: {override}={options_of(override)[0]}"
    elif "=" in arguments:
        which = "; leave out the spaces around ="
    elif re.match(r"[\w.]+=[^'\"]*=", override):
        key, _, value = override.partition("=")
        which = f"; quote a value that has a = in it: \"{key}='{value}'\""
    elif override in known_keys([]):
        which = f"; type {override}={beyond[0] if beyond else '...'}"
    elif re.match(r"[\w.@/]+=\[[^\]]*$", override):
        which = "; a list has no spaces in it, or quotes around all of key=[...]"
    elif "=~/" in override:
        which = "; write $HOME in the place of ~"
    elif re.match(r"[\w.@/]+=[^'\"]", override):
        key, _, value = override.partition("=")
        which = f"; quote a value with other than plain letters in it: \"{key}='{value}'\""
    elif override in commands_of_flowrun():
        which = f"; it is a command of flowrun: flowrun {' '.join(arguments)}"
    elif override and Path(override).is_dir():
        which = f"; to go on with a run, type resume={override}"
    return f"{override}: cannot be read as key=value{which}"


def no_option(file: str, options: Sequence[str], arguments: Sequence[str]) -> str:
    """Say of an option that its group does not have which one may have been meant."""
    group, _, option = file.rpartition("/")
    chosen = [argument for argument in arguments if argument.startswith("launcher=")]
    if group == "hydra/launcher" and chosen:
        extra = chosen[-1].partition("=")[2]
        return f"{chosen[-1]} is an extra: pip install 'flowtrain[{extra}]'"
    typed = next((each for each in reversed(arguments) if each.startswith("data=")), "")
    if group.startswith("data") and Path(path := typed.removeprefix("data=")).suffix:
        return f"data: no option {path!r}; for a file type data=table data.path={path}"
    return f"{group}: no option {option!r}; {suggest(option, options)}"


def commands_of_flowrun() -> list[str]:
    """Return the names of the commands of flowrun, the other program.

    >>> commands_of_flowrun()[:2]
    ['list', 'evaluate']
    """
    from flowtrain.cli.flowrun import COMMANDS  # slow to import, and needed after a mistake alone

    return [command.__name__.rpartition(".")[2] for command in COMMANDS]


def suggest(name: str, known: Sequence[str]) -> str:
    """Offer the names closest to an unknown one, else those of its group, or point to all.

    >>> suggest("lr", ["model.bins", "optimizer.lr"])
    'did you mean optimizer.lr?'
    """
    group, _, last = name.lower().rpartition(".")
    beside = {each.rpartition(".")[2]: each for each in known if each.rpartition(".")[0] == group}
    turned = [each for each in beside if sorted(each) == sorted(last)]  # rl for lr
    close = [beside[each] for each in turned or _nearest(last, [*beside])]
    close = close or [each for each in known if each.endswith(f".{last}")]
    there = known
    if group and beside:  # and no nearest of all: names of one group are near by it alone
        there = [*beside.values()]
    elif not close:
        close = _nearest(name.lower(), known)
    if close:
        return f"did you mean {' or '.join(close[:2])}?"
    if len(there) <= 24:
        return f"choose from {', '.join(there)}"
    return "`flowtrain --cfg job` shows every key"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=2, cutoff=0.75)


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Say that there is no such key, and which one may have been meant.

    Args:
        key: as typed.
        known: keys of the options that were chosen.
    """
    if key in known or key in known_keys([]):  # an option that is not chosen has it
        group, _, name = key.rpartition(".")
        files = sorted((CONF / group.rpartition(".")[2]).glob("*.yaml"))
        having = ", ".join(file.stem for file in files if name in keys_of(file))
        return f"{key}: no key of the chosen {group}, but of {having}"
    return f"{key}: no such key; {suggest(key, known)}"
