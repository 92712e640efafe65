"""What was typed: words as Hydra is to read them, and the settings of a run that they name."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from flowtrain.cli.keys import several_runs
from flowtrain.cli.messages import GROUPS
from flowtrain.errors import CheckpointError, ConfigError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.latest import followed
from flowtrain.text import for_hydra

if TYPE_CHECKING:
    from flowtrain.config.schema import Config

# What a user's own class takes: any key.
FREE = re.compile(r"(data|model|objective)\.arguments[.=]")


def understood(arguments: list[str]) -> list[str]:
    """Rewrite what Hydra would take amiss on the command line.

    A folder or a table may be named as it is called, although = and , have a meaning to Hydra and
    other alphabets have none, the arguments of a class that is not ours may have any key, and the
    table of a run that goes on may have moved.

    A link `latest` is followed at once, before it points to the run that starts.

    >>> understood(["data.arguments.side=2", "resume=outputs/a,b"])
    ['++data.arguments.side=2', "resume='outputs/a,b'"]
    """
    sweep = several_runs(arguments)
    resuming = any(argument.startswith("resume=") for argument in arguments)
    bare = re.compile("(resume|init_from)=([^'\"].*)", re.DOTALL)
    path = re.compile(
        r"(data\.path|objective\.teacher|hydra\.(?:run|sweep)\.dir)=([^'\"\[{].*)", re.DOTALL
    )
    rewritten = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.partition("@")[0] in GROUPS and not value.startswith(("'", '"', "[", "{")):
            argument = re.sub(r"\.yaml(?=,|$)", "", argument)  # a file goes by its name
        if FREE.match(argument):
            argument = f"++{argument}"
        elif match := bare.fullmatch(argument):
            folder = _at_home(followed(match[2]), sweep)
            if not sweep or folder != match[2]:
                argument = f"{match[1]}={for_hydra(folder)}"
        elif match := path.fullmatch(argument):
            place = _at_home(followed(match[2]), sweep)
            if place != match[2] or (not sweep and _is_foreign(place)):
                argument = f"{match[1]}={for_hydra(place)}"
        if resuming and argument.startswith("data.path="):  # its data are no default's
            argument = f"++{argument}"
        rewritten.append(argument)
    return rewritten


def _at_home(path: str, sweep: bool) -> str:
    """Return a path with the home folder for a ~, which not every shell puts there."""
    return path if sweep and "," in path else os.path.expanduser(path)


def _is_foreign(path: str) -> bool:
    """Return whether a path means something else to Hydra, or nothing, and is no interpolation."""
    plain = re.fullmatch(r"[\w./\\+$%*@?|:, -]*", path, re.ASCII)
    return "${" not in path and (not plain or ("," in path and Path(path).exists()))


def overridden(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return what is asked for of a run: of one that goes on, only the settings that were typed."""
    if not raw["resume"]:
        return raw
    asked: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group == "experiment":
            raise ConfigError("experiment: a run that goes on has its own settings; leave it out")
        *parents, last = (override.package or override.key_or_group).replace("/", ".").split(".")
        source, target = raw, asked
        for key in parents:
            source, target = source[key], target.setdefault(key, {})
        target[last] = source.get(last)
    del asked["resume"]
    asked.pop("trust_code", None)
    return asked


def refuse_idle_settings(config: "Config", overrides: Sequence[str]) -> None:
    """Refuse settings that were typed for a new run and have no effect there.

    Args:
        config: of the run.
        overrides: as Hydra has them.

    Raises:
        ConfigError: as said.
    """
    from flowtrain.config.schema import refuse_idle

    typed = [each.lstrip("+").partition("=")[0] for each in overrides]
    refuse_idle(config, dim=config.data.dimensions, typed=typed)


def checked(raw: dict[str, Any], asked: dict[str, Any]) -> "Config":
    """Return the config of a run: of one that goes on, its own with the settings that were typed.

    Args:
        raw: a composed config.
        asked: what `overridden` finds of it.

    Raises:
        UserError: the config is invalid, or contradicts that of the run.
    """
    from flowtrain.config.schema import validate
    from flowtrain.runs.settings import held_config, reconcile

    if not isinstance(raw["resume"], str):
        return validate(raw)
    try:
        own = held_config(RunFolder(Path(raw["resume"])))
    except CheckpointError:  # the checkpoint says it, later
        return validate(raw)
    ours = {key: raw[key] for key in ("resume", "trust_code")}
    return validate({**reconcile(own.model_dump(), asked), **ours})
