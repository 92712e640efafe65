"""Mistakes on the command line that are told before Hydra composes a config."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flowtrain.cli.keys import known_keys, options_of, several_runs
from flowtrain.cli.messages import GROUPS, no_option, unknown_key
from flowtrain.errors import UserError
from flowtrain.sweeps.plan import ELSEWHERE

# Of a folder of one's own, which may have other keys and options; and TAB completion, whose words
# are no keys.
LEFT_TO_HYDRA = ("--config", "-c", "--shell-completion", "-sc", "hydra.searchpath=")


def refuse_unknown_keys(arguments: Sequence[str]) -> None:
    """Refuse a mistyped key in half the time that Hydra takes to compose a config and find out.

    A mistyped option of a group is refused first: it has no keys to look at.

    Raises:
        UserError: a key that no option of its group has, or one with dashes before it; an option
            that its group does not have.
    """
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        key, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and key in known_keys([]):
            meant = f"{key}={value or following or '...'}"
            raise UserError(f"{argument}: a setting has no dashes; type {meant}")
    if any(argument.startswith(LEFT_TO_HYDRA) for argument in arguments):
        return
    _refuse_unknown_options(arguments)
    known: list[str] = []
    for argument in arguments:
        key, given, _ = argument.partition("=")
        if given and re.fullmatch(r"[A-Za-z_][\w.]*", key) and not key.startswith("hydra."):
            known = known or known_keys(arguments)
            if key not in known:
                raise UserError(unknown_key(key, known))


def _refuse_unknown_options(arguments: Sequence[str]) -> None:
    listed = r",[\w./,-]*" if several_runs(arguments) else ""
    for argument in arguments:
        key, _, value = argument.partition("=")
        group = key.partition("@")[0]
        if group in GROUPS and value.startswith("["):
            raise UserError(
                f"{argument}: a list is no option; name one, or several by commas behind -m"
            )
        if group not in GROUPS or not re.fullmatch(rf"[A-Za-z_][\w./-]*({listed})?", value):
            continue
        known = options_of(group)
        for option in value.split(","):
            if option == "null":
                raise UserError(f"{argument}: null is no option; for the default leave {group} out")
            if option not in known:
                raise UserError(no_option(f"{group}/{option}", known, arguments))


class _Flags(argparse.ArgumentParser):
    """A parser of Hydra's flags that tells a mistake in one line, without their usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `flowtrain --help` shows what can be typed")


def refuse_unknown_flags(arguments: Sequence[str]) -> None:
    """Refuse what begins with a dash and is no flag of Hydra, lacks its value, or has no effect.

    Raises:
        UserError: as said.
    """
    from hydra._internal.utils import get_args_parser

    parser = _Flags(parents=[get_args_parser()], add_help=False, allow_abbrev=False)
    found = parser.parse_args([*arguments])
    flags = {
        "--run": found.run, "-m": found.multirun, "--cfg": found.cfg, "--info": found.info,
        "--shell-completion": found.shell_completion,
    }  # fmt: skip
    given = [flag for flag, value in flags.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: one at a time")
    if found.resolve and not found.cfg:
        raise UserError("--resolve: it is for --cfg job")
    if found.experimental_rerun:
        raise UserError("--experimental-rerun: a run goes on by resume=FOLDER")


def refuse_wrong_folder(arguments: Sequence[str]) -> None:
    """Refuse a folder where it has no effect, and one without a name.

    That of a run has none for a sweep, nor for a run that goes on in its own; a sweep's has none
    for a single run. Several runs do not go on as a sweep.

    Raises:
        UserError: as said.
    """
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    if "hydra.run.dir" in keys and several_runs(arguments):
        raise UserError("hydra.run.dir: a sweep has no such folder; use hydra.sweep.dir")
    for key in ("hydra.sweep.dir", "hydra.sweep.subdir"):
        if key in keys and not several_runs(arguments):
            raise UserError(f"{key}: a single run has no such folder; use hydra.run.dir, or add -m")
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        if f"{key}=" in arguments:
            raise UserError(f"{key}: it is empty; name a folder, . for this one")
    if "hydra.job.chdir=true" in [argument.lower() for argument in arguments]:
        raise UserError("hydra.job.chdir: a run stays where it was started; leave it out")
    if "resume" in keys and several_runs(arguments):
        raise UserError(
            "resume: one run goes on at a time, without -m; a sweep goes on by "
            "flowtrain -m resume_sweep=FOLDER"
        )
    if {"resume", "hydra.run.dir"} <= keys:
        raise UserError("resume: a run goes on in its own folder: leave hydra.run.dir out")


def refuse_what_sweeps_have(arguments: Sequence[str]) -> None:
    """Refuse what says where and how the jobs of a sweep run, of a single run.

    Raises:
        UserError: as said.
    """
    if several_runs(arguments) or {"--cfg", "-c"} & {*arguments}:
        return
    for argument in arguments:
        if argument.partition("=")[0] in ELSEWHERE:
            raise UserError(f"{argument}: it is for many runs: add -m, or leave it out")


def refuse_missing_tables(arguments: Sequence[str]) -> None:
    """Refuse a table that is not there, before a run folder is made and torch is loaded.

    What Hydra would unquote or interpolate is left to whoever reads the table.

    Raises:
        UserError: as said.
    """
    several = several_runs(arguments)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key != "data.path" or re.match(r"['\"\[{]|null$", value) or "$" in value:
            continue
        if several and re.search(r"[()=]", value):  # a range of a sweep's, or Hydra refuses it
            continue
        for path in filter(None, value.split(",") if several else [value]):
            if not Path(path).expanduser().exists():
                raise UserError(f"data.path: {path}: no such file")
