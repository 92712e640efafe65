"""Mistakes on the command line that are told before Hydra composes a config."""

import re
from collections.abc import Sequence

from flowtrain.cli.keys import known_keys
from flowtrain.cli.messages import unknown_key
from flowtrain.errors import UserError
from flowtrain.sweeps.plan import ELSEWHERE

# Of a folder of one's own, which may have other keys; and TAB completion, whose words are no keys.
LEFT_TO_HYDRA = ("--config", "-c", "--shell-completion", "-sc")


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
