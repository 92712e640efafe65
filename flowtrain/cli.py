"""The command `flowtrain`: compose, validate, hand over to the trainer. The one module with Hydra.

Nothing heavy is imported here: help, TAB completion and the refusal of a typo stay fast.
"""

import difflib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flowtrain import __version__
from flowtrain.errors import UserError

PACKAGE = Path(__file__).resolve().parent
CONF = next(c for c in (PACKAGE / "conf", PACKAGE.parent / "conf") if (c / "config.yaml").is_file())
LONGEST_NAME = 200  # bytes; file systems take 255

log = logging.getLogger("flowtrain")


def main() -> None:
    """Run the command line. Exits 0 only for success, and tells a user's mistake in one message."""
    if sys.argv[1:] == ["--version"]:  # Hydra would tell its own
        print(f"flowtrain {__version__}")
        return
    # Hydra then raises instead of printing, and every message is ours to write.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # A full disk is told once: not by the log too, nor by TensorBoard's thread.
    logging.raiseExceptions = False
    threading.excepthook = tell_defect
    sys.argv[1:] = quote_folder(sys.argv[1:])
    app = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)
    try:
        try:
            app()
        finally:
            compare_sweep()
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (HydraException, OmegaConfBaseException, UserError, YAMLError, OSError) as error:
        fail(error)
    except ValueError as error:
        if "Config group override" not in str(error):  # Hydra's refusal of a name like data=3
            raise
        fail(error)
    except KeyboardInterrupt:  # before the first step, or a second one
        sys.stderr.write("flowtrain: interrupted\n")
        sys.exit(128 + signal.SIGINT)


def tell_defect(failure: threading.ExceptHookArgs) -> None:
    """Tell what ended a thread, unless it was the disk."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def quote_folder(arguments: list[str]) -> list[str]:
    """Let a sweep's folder be named as it is called: to Hydra = and , have a meaning."""
    if {"-m", "--multirun"} & {*arguments}:
        return arguments
    bare = re.compile("(resume|init_from)=([^'\"].*)")
    return [f"{m[1]}='{m[2]}'" if (m := bare.fullmatch(each)) else each for each in arguments]


def fail(error: Exception) -> NoReturn:
    """Tell a mistake in one message and exit."""
    sys.stderr.write(f"flowtrain: {explain(error)}\n")
    sys.exit(1)


def run(composed: DictConfig) -> float:
    """Run one job: a mistake in it ends a single run, but not the other jobs of a sweep."""
    try:
        return train_composed(composed)
    except UserError as error:
        log.error(explain(error))
        if HydraConfig.get().mode == RunMode.RUN:
            fail(error)
        sys.stderr.write(f"flowtrain: this job failed: {explain(error)}\n")
        raise


def train_composed(composed: DictConfig) -> float:
    """Validate one composed config, train, and return the metric that sweepers minimise."""
    from flowtrain.config import validate

    folder = Path(composed.resume or HydraConfig.get().runtime.output_dir)
    raw: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    asked = overridden(raw) if composed.resume else raw
    config = validate(raw)

    from flowtrain.tracking import console_lines
    from flowtrain.train import train

    try:
        with console_lines():
            result = train(config, folder, asked=asked)
    except OSError as error:  # the disk or the network, no defect
        raise UserError(f"{error.filename or folder}: {error.strerror or error}") from error
    if result.signal is not None:
        sys.exit(128 + result.signal)
    return result.metric


class RememberSweep(Callback):
    """Keeps the folder of a sweep: Hydra tells of its end only if no job failed."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Take note of where the jobs will be."""
        RememberSweep.folder = Path(config.hydra.sweep.dir)


def compare_sweep() -> None:
    """Leave a table and a picture over all jobs in a sweep's folder, if this was a sweep."""
    folder, RememberSweep.folder = RememberSweep.folder, None
    if folder is None or not any(folder.glob("*/result.json")):
        return
    from flowtrain.compare import write_comparison

    try:
        for path in write_comparison(folder):
            print(path)
    except UserError as error:  # the runs are there: a table that is not is no reason to fail
        sys.stderr.write(f"flowtrain: no comparison of the sweep: {explain(error)}\n")


def run_folder(resume: str | None, new: str, *, _root_: DictConfig) -> str:
    """Name the run's folder, once the config is known to be valid, so that a mistake leaves none.

    Raises:
        UserError: for an invalid config, or a folder to take over that holds no run.
    """
    from flowtrain.config import validate

    raw: dict[str, Any] = OmegaConf.to_container(
        OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"]), resolve=True
    )  # type: ignore[assignment]
    validate(raw)
    for key, file in (("resume", "last.pt"), ("init_from", "best.pt")):
        if raw[key] is not None and not (Path(raw[key]) / "checkpoints" / file).is_file():
            raise UserError(f"{key}: {raw[key]} is no run folder: it has no checkpoints/{file}")
    return new if resume is None else resume


def record_folder(resume: str | None) -> str | None:
    """Return where Hydra records the config; a resumed run keeps the record it has."""
    return None if resume else ".hydra"


def short(name: str) -> str:
    """Cut the name of a job's folder to what a file system takes; its number keeps it unique."""
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def overridden(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a composed config that the command line named."""
    asked: dict[str, Any] = {}
    given = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    for override in given:
        *parents, last = (override.package or override.key_or_group).replace("/", ".").split(".")
        source, target = raw, asked
        for key in parents:
            source, target = source[key], target.setdefault(key, {})
        target[last] = source.get(last)
    del asked["resume"]
    return asked


def explain(error: BaseException) -> str:
    """Say what went wrong and what is allowed; for a mistyped name, the nearest one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    message = str(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: no option {option!r}; {suggest(option, error.options)}"
    if absent := re.match(r"Interpolation key '([^']+)' not found", message):
        return f"{absent[1]}: missing from the config"
    if unknown := re.match(r"Could not override '([^']+)'", message):
        return f"{unknown[1]}: no such key; {suggest(unknown[1], known_keys())}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    hydra_only = ("See https:", "    full_key: ", "    object_type=")
    return "\n".join(line for line in message.splitlines() if not line.startswith(hydra_only))


def suggest(name: str, known: Sequence[str]) -> str:
    """Offer the names closest to an unknown one, or point to all of them."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.75)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if len(known) <= 24:
        return f"choose from {', '.join(known)}"
    return "`flowtrain --cfg job` shows every key"


def known_keys() -> list[str]:
    """Return every key of the config that the command line's own choices of groups compose."""
    chosen = [arg for arg in sys.argv[1:] if re.fullmatch(r"[\w/]+=[\w/]+", arg)]
    chosen = [
        arg for arg in chosen if (CONF / arg.replace("=", "/")).with_suffix(".yaml").is_file()
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", overrides=chosen)
    keys: list[str] = []
    pending: list[tuple[str, Any]] = [("", OmegaConf.to_container(config))]
    while pending:
        path, node = pending.pop()
        if isinstance(node, dict):
            pending += [(f"{path}.{key}" if path else key, value) for key, value in node.items()]
        if path:
            keys.append(path)
    return keys


# At import, because a launcher's worker imports this module and never calls main.
OmegaConf.register_new_resolver("flowtrain.folder", run_folder, replace=True)
OmegaConf.register_new_resolver("flowtrain.record", record_folder, replace=True)
OmegaConf.register_new_resolver("flowtrain.short", short, replace=True)


if __name__ == "__main__":
    main()
