"""The command `flowtrain`: compose, validate, hand over to the trainer.

Nothing heavy is imported here: help, TAB completion and the refusal of a typo stay fast.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flowtrain import __version__
from flowtrain.cli.help import help_text
from flowtrain.cli.hydra_hooks import check_taken_over
from flowtrain.cli.messages import explain
from flowtrain.cli.refusals import (
    refuse_missing_tables,
    refuse_unknown_flags,
    refuse_unknown_keys,
    refuse_what_sweeps_have,
    refuse_wrong_folder,
)
from flowtrain.cli.streams import mend_streams
from flowtrain.cli.typed import checked, overridden, refuse_idle_settings, understood
from flowtrain.config import CONF
from flowtrain.errors import UserError
from flowtrain.live import console_lines
from flowtrain.progress import doing
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.latest import point_to
from flowtrain.runs.lock import LockedError, locked
from flowtrain.runs.result import write_failed_start
from flowtrain.sweeps.again import typed_again
from flowtrain.sweeps.plan import read_jobs
from flowtrain.sweeps.study import judge_of
from flowtrain.text import visible

log = logging.getLogger("flowtrain")


def main() -> None:
    """Run the command line; exit 0 only for success, and explain a mistake in one message."""
    mend_streams()
    if sys.argv[1:] == ["--version"]:  # Hydra would tell its own
        print(f"flowtrain {__version__}")
        return
    if {"--help", "-h"} & {*sys.argv[1:]}:  # Hydra would compose every option, in 0.8 s
        print(help_text(), end="")
        return
    # Hydra then raises instead of printing, and every message is ours to write.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # A full disk is reported once: not by the log too, nor by TensorBoard's thread.
    logging.raiseExceptions = False
    threading.excepthook = report_defect
    app = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)
    try:
        typed = typed_again(sys.argv[1:])
        refuse_missing_tables(typed)
        sys.argv[1:] = understood(typed)
        refuse_unknown_keys(sys.argv[1:])
        refuse_unknown_flags(sys.argv[1:])
        refuse_wrong_folder(sys.argv[1:])
        refuse_what_sweeps_have(sys.argv[1:])
        app()
    except BrokenPipeError:
        end_unread()
    except (HydraException, OmegaConfBaseException, UserError, YAMLError, OSError) as error:
        fail(error)
    except ValueError as error:
        if "Config group override" not in str(error):  # Hydra's refusal of a name like data=3
            raise
        fail(error)
    except KeyboardInterrupt:  # before the first step, or a second one
        sys.stderr.write("flowtrain: interrupted\n")
        sys.exit(128 + signal.SIGINT)


def report_defect(failure: threading.ExceptHookArgs) -> None:
    """Report what ended a thread, unless it was the disk."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def fail(error: Exception) -> NoReturn:
    """Explain a mistake in one message and exit."""
    sys.stderr.write(f"flowtrain: {visible(explain(error))}\n")
    sys.exit(1)


def end_unread() -> NoReturn:
    """Exit in silence: the reader of our output, `head` say, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def run(composed: DictConfig) -> float:
    """Run one job: a mistake in it ends a single run, but not the other jobs of a sweep."""
    try:
        return train_composed(composed)
    except BrokenPipeError:  # before Hydra makes it a defect's
        end_unread()
    except UserError as error:
        log.error(explain(error))
        if HydraConfig.get().mode == RunMode.RUN:
            fail(error)
        sys.stderr.write(f"flowtrain: this job failed: {visible(explain(error))}\n")
        if not isinstance(error, LockedError):  # the folder is another's
            leave_reason(composed, explain(error))
        raise


def leave_reason(composed: DictConfig, reason: str) -> None:
    """Say in the folder of a sweep's job why it failed, if the job did not come to say so."""
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    if not folder.result.exists():
        model, data = composed.model.name, composed.data.name
        seed = composed.seed if isinstance(composed.seed, int) else 0  # it may be what is wrong
        write_failed_start(folder, reason, model=model, data=data, seed=seed)


def from_here(folder: Path) -> Path:
    """Return a folder as a user in the working directory would type it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def train_composed(composed: DictConfig) -> float:
    """Validate one composed config, train, and return the metric that sweepers minimise."""
    hydra_config = HydraConfig.get()
    folder = from_here(Path(composed.resume or hydra_config.runtime.output_dir))
    if composed.resume is not None:
        check_taken_over("resume", folder)
    jobs = [*read_jobs(folder.parent)] if hydra_config.mode == RunMode.MULTIRUN else []
    job = None
    if hydra_config.mode == RunMode.MULTIRUN:
        job = f"job {jobs.index(folder.name) + 1}" if folder.name in jobs else folder.name
    point_to(folder if job is None else folder.parent)
    raw: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    asked = overridden(raw, hydra_config.overrides.task)
    config = checked(raw, asked)
    if config.resume is None and hydra_config.mode == RunMode.RUN:
        refuse_idle_settings(config, hydra_config.overrides.task)

    # A sign of life before torch is imported, on the console and in the log.
    opening = "resuming" if config.resume else f"{config.model.name} on {config.data.title} in"
    opening = f"{opening} {folder}"
    log.info(opening)
    if job is None:
        print(visible("\n  ".join([opening, *config.logger.view(folder)])), flush=True)
    else:
        print(visible(f"{job} of {len(jobs)}: {opening}"), flush=True)

    from flowtrain.cli.launchers import deal_gpu
    from flowtrain.training.signals import pass_on

    alone = job is None or str(hydra_config.launcher._target_).startswith("hydra._internal.")
    try:
        with console_lines(moving=alone, prefix="" if alone else f"{job}: "):
            with locked(folder), doing("loading torch"):  # it is at work, whoever looks
                from flowtrain.training.trainer import train

                deal_gpu()
            hopeless = judge_of(folder, by_hand=job is None)
            result = train(
                config, folder, asked=asked, trust_code=config.trust_code, hopeless=hopeless
            )
            if result.status == "interrupted" and result.signal is not None:
                pass_on(result.signal)
    except BrokenPipeError:
        raise
    except OSError as error:  # the disk or the network, no defect
        raise UserError(f"{error.filename or folder}: {error.strerror or error}") from error
    told_by_batch_system = result.signal in (signal.SIGUSR1, signal.SIGUSR2)
    if result.signal is not None and not (told_by_batch_system and result.status == "completed"):
        sys.exit(128 + result.signal)
    return result.metric
