"""A config composed for a Python caller, as the command line would, and no trace of it in Hydra."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import flowtrain.cli.hydra_hooks  # noqa: F401 - the resolvers of conf/
from flowtrain.cli.messages import explain
from flowtrain.cli.refusals import refuse_unknown_keys
from flowtrain.cli.typed import overridden, understood
from flowtrain.config import CONF
from flowtrain.errors import ConfigError, UserError

_COMPOSING = threading.Lock()  # Hydra keeps what it composes by in the process


@dataclass(frozen=True)
class Composed:
    """A run as overrides ask for it.

    Attributes:
        raw: the whole config, as plain containers.
        asked: the settings that a resumed run takes over from it.
        folder: of the run.
        overrides: as they were given.
    """

    raw: dict[str, Any]
    asked: dict[str, Any]
    folder: Path
    overrides: list[str]


def compose(overrides: Sequence[str], *, folder: str | Path | None = None) -> Composed:
    """Compose conf/ with overrides, check the result, and name the run's folder.

    Args:
        overrides: "group=option" and "key=value", as the command line takes them.
        folder: of the run; None is that of a run to resume, or a new one below outputs/.

    Raises:
        UserError: in one message, what was wrong and what is allowed.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides are a list of strings: [{overrides!r}]")
    if isinstance(overrides, Mapping):
        listed = [f"{key}={value}" for key, value in overrides.items()]
        raise ConfigError(f"overrides are a list of strings: {listed}")
    given = [str(override) for override in overrides]
    for override in given:
        if override.startswith(("-", "hydra.")):
            raise ConfigError(f"{override}: only the command line knows it; see folder=...")
        if override.startswith("launcher="):
            raise ConfigError(f"{override}: only sweeps at the command line have a launcher")
    arguments = understood(given)
    try:
        refuse_unknown_keys(arguments)
        for parsed in OverridesParser.create().parse_overrides(arguments):
            if parsed.is_sweep_override():
                raise ConfigError(f"{parsed.input_line}: several runs; call train for each of them")
        with _COMPOSING, _hydra():
            composed = hydra.compose("config", overrides=arguments, return_hydra_config=True)
        target = Path(composed.hydra.run.dir)  # it validates the config, and what is to be resumed
        own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        raw: dict[str, Any] = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
        asked = overridden(raw, arguments)
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(explain(error, arguments)) from None
    if folder is not None:
        if raw["resume"]:
            raise ConfigError("resume: it names the folder; leave folder=... out")
        target = Path(folder).expanduser()
    return Composed(raw, asked, target, given)


@contextmanager
def _hydra() -> Iterator[None]:
    """Let Hydra compose conf/, and leave it as it was: the caller may be a program of Hydra's."""
    version, running = VersionBase.instance(), GlobalHydra.instance().hydra
    before = version.getbase()
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        version.version_base = before
        GlobalHydra.instance().hydra = running


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
