"""What Hydra asks of us: names of folders, the end of a sweep; and overrides read again."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from flowtrain.cli.keys import several_runs
from flowtrain.cli.messages import explain
from flowtrain.config import CONF
from flowtrain.errors import CheckpointError, ConfigError, UserError
from flowtrain.runs.existing import existing_checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.latest import followed
from flowtrain.runs.lock import owner
from flowtrain.sweeps.names import UNSAFE
from flowtrain.text import for_hydra

if TYPE_CHECKING:
    from flowtrain.config.schema import Config

# What a user's own class takes: any key.
FREE = re.compile(r"(data|model|objective)\.arguments[.=]")


class LeanReturn(Callback):
    """Hand to a sweep how a job ended, and not its configs, which stand in the job's folder.

    Hydra keeps what every job returns until the last has: 0.2 MB each.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Forget the configs of a job."""
        job_return.cfg = job_return.hydra_cfg = None


def compare_sweep(folder: Path) -> None:
    """Print a table over all jobs of a sweep, finished or not; leave it and a picture there."""
    if not any(folder.glob("*/result.json")):
        return
    from flowtrain.cli.compare import print_comparison
    from flowtrain.comparison.compare import compare
    from flowtrain.comparison.summary import find_runs
    from flowtrain.comparison.write import write_comparison
    from flowtrain.config.logger import TensorBoard

    try:
        runs = find_runs([folder])
        if not any(run.status == "completed" for run in runs):
            return  # each job has said why
        comparison = compare(runs)
        print_comparison(comparison)
        for path in write_comparison(comparison, folder):
            print(path)
        if any(run.config.get("logger") == "tensorboard" for run in runs):
            for line in TensorBoard(name="tensorboard").view(folder):
                print(line)
    except UserError as error:  # the runs are there: a table that is not is no reason to fail
        sys.stderr.write(f"flowtrain: no comparison of the sweep: {explain(error)}\n")


def run_folder(resume: str | None, new: str, *, _root_: DictConfig) -> str:
    """Name the run's folder, once the config is known to be valid, so that a mistake leaves none.

    Args:
        resume: the folder of a run that goes on, or None.
        new: that of a new run, without the name of its data.

    Raises:
        UserError: for an invalid config, or a folder to take over that holds no run.
    """
    from flowtrain.config.memory import refuse_beyond_memory
    from flowtrain.config.schema import refuse_idle

    raw: dict[str, Any] = OmegaConf.to_container(
        OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"]), resolve=True
    )  # type: ignore[assignment]
    overrides = [str(each) for each in _root_.hydra.overrides.task]
    config = checked(raw, overridden(raw, overrides) if resume else raw)
    dim = config.data.dimensions
    if dim is not None:
        refuse_beyond_memory(config, dim)
    if resume is None:
        typed = [each.lstrip("+").partition("=")[0] for each in overrides]
        refuse_idle(config, dim=dim, typed=typed)
    for key in ("resume", "init_from"):
        if raw[key] is not None:
            check_taken_over(key, Path(raw[key]))
    return f"{new}-{UNSAFE.sub('_', config.data.title)}" if resume is None else resume


def check_taken_over(key: str, path: Path) -> None:
    """Refuse a folder to take over that holds no run, or links in the place of files.

    Args:
        key: of the config that names it, resume or init_from.
        path: of the folder.

    Raises:
        UserError: says what is there instead.
    """
    folder = RunFolder(path)
    usable = ("last", "best") if key == "resume" else ("best",)
    try:
        folder.refuse_links()
        if key == "resume" and folder.replicas:
            return
        if not any(folder.checkpoint(name).is_file() for name in usable):
            existing_checkpoint(path, usable[0])  # it is not: this says so
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def record_folder(resume: str | None, *, _root_: DictConfig) -> str | None:
    """Return where Hydra records the config; a run that goes on, or is at work, keeps its own."""
    if resume:
        return None
    folder = Path(_root_.hydra.runtime.output_dir)
    RunFolder(folder).refuse_links()
    return None if RunFolder(folder).begun or owner(folder) is not None else ".hydra"


def unless(given: Any, default: Any, otherwise: Any = None) -> Any:
    """Return a default that another setting turns off, or what stands for it then.

    >>> unless(None, 800), unless(60.0, 800)
    (800, None)
    """
    return default if given is None else otherwise


def checked(raw: dict[str, Any], asked: dict[str, Any]) -> "Config":
    """Return the config of a run: of one that goes on, its own with the settings that were typed.

    Args:
        raw: a composed config.
        asked: what `overridden` finds of it, if a run goes on.

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


def overridden(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return only the settings of a composed config that the user typed."""
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


def understood(arguments: list[str]) -> list[str]:
    """Rewrite what Hydra would take amiss on the command line.

    A folder or a table may be named as it is called, although = and , have a meaning to Hydra and
    other alphabets have none, and the arguments of a class that is not ours may have any key.

    A link `latest` is followed at once, before it points to the run that starts.

    >>> understood(["data.arguments.side=2", "resume=outputs/a,b"])
    ['++data.arguments.side=2', "resume='outputs/a,b'"]
    """
    sweep = several_runs(arguments)
    bare = re.compile("(resume|init_from)=([^'\"].*)", re.DOTALL)
    path = re.compile(r"(data\.path|objective\.teacher|hydra\.run\.dir)=([^'\"\[{].*)", re.DOTALL)
    rewritten = []
    for argument in arguments:
        if FREE.match(argument):
            argument = f"++{argument}"
        elif match := bare.fullmatch(argument):
            folder = followed(match[2])
            if not sweep or folder != match[2]:
                argument = f"{match[1]}={for_hydra(folder)}"
        elif (match := path.fullmatch(argument)) and not sweep and _is_foreign(match[2]):
            argument = f"{match[1]}={for_hydra(os.path.expanduser(match[2]))}"
        rewritten.append(argument)
    return rewritten


def _is_foreign(path: str) -> bool:
    """Return whether a path means something else to Hydra, or nothing, and is no interpolation."""
    plain = re.fullmatch(r"[\w./\\+$%*@?|:, -]*", path, re.ASCII)
    return "${" not in path and (not plain or ("," in path and Path(path).exists()))


def compose_option(group: str, option: str) -> dict[str, Any]:
    """Return the settings of one option of a group, composed as the command line would.

    Raises:
        UserError: the group has no such option.
    """
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if option not in options:
        raise UserError(f"{group}: {option!r} is unknown; choose from {', '.join(options)}")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose(overrides=[f"+{group}={option}"])[group]
    settings: dict[str, Any] = OmegaConf.to_container(composed)  # type: ignore[assignment]
    return settings


# At import, because a launcher's worker imports this module and never calls main.
OmegaConf.register_new_resolver("flowtrain.folder", run_folder, replace=True)
OmegaConf.register_new_resolver("flowtrain.record", record_folder, replace=True)
OmegaConf.register_new_resolver("flowtrain.unless", unless, replace=True)
