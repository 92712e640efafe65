"""The start of a run: built at step 0, or as its checkpoint left it, or why it could not begin."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flowtrain.config.schema import Config, refuse_idle
from flowtrain.errors import CheckpointError, ConfigError, TrainingError
from flowtrain.files import remove_leftovers
from flowtrain.progress import doing
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.migrate import saved_config
from flowtrain.runs.result import named, write_failed_start
from flowtrain.training.captured import capture_steps
from flowtrain.training.compiled import compile_steps
from flowtrain.training.resume import warm_start
from flowtrain.training.run import Run, build_run

log = logging.getLogger("flowtrain")


def open_or_build(config: Config, folder: RunFolder, saved: dict[str, Any] | None) -> Run:
    """Build a run, at step 0 or as a checkpoint left it.

    Args:
        config: of the run.
        folder: of the run; what a killed process left half written is removed.
        saved: the checkpoint, or None.

    Raises:
        UserError: as `train`.

    >>> from flowtrain.runs import checkpoint
    >>> from flowtrain.runs.load import open_run
    >>> folder, config = RunFolder(tmp_path), open_run(run_folder).config
    >>> saved = checkpoint.read(run_folder / "checkpoints" / "last.pt")
    >>> [open_or_build(config, folder, each).state.progress.step for each in (None, saved)]
    [0, 6]
    """
    for each in (folder.path, folder.checkpoint("last").parent, folder.figure("")):
        remove_leftovers(each)
    try:
        config.logger.refuse_if_not_installed()
        with telling_memory(config):
            with doing("building"):
                run = build_run(config, folder)
            if saved is None:
                refuse_idle(config, dim=run.state.flow.dim)
            if saved is None and config.init_from is not None:
                warm_start(run.state, run.config)
            if config.trainer.compile:
                compile_steps(run)
            if config.trainer.capture:
                run = capture_steps(run)
    except Exception as error:
        if saved is None:
            report_failed_start(config, folder, error)
        raise
    if saved is not None:
        known, path = saved.get("table"), saved["config"]["data"].get("path")
        moved = path != getattr(run.config.data, "path", None)
        if known != run.splits.table and (known is not None or moved):
            raise ConfigError(
                f"{folder.path}: its table has changed since: the rows would be dealt anew, and "
                f"test points be learned; begin a run on it, with init_from={folder.path}"
            )
        run.state.load_state_dict(saved)
        log.info("resuming at step %d", run.progress.step)
    return run


@contextmanager
def telling_memory(config: Config) -> Iterator[None]:
    """Tell an allocation that fails, on the host or a device, as a `TrainingError`.

    Raises:
        TrainingError: with the sizes that ask for memory, and what to change.

    >>> from flowtrain.runs.load import open_run
    >>> try:
    ...     with telling_memory(open_run(run_folder).config):
    ...         raise MemoryError
    ... except TrainingError as error:
    ...     str(error)[:45]
    'out of memory, with trainer.batch_size=32 and'
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("out of memory", "can't allocate memory", "not enough memory")
        known = isinstance(error, MemoryError) or any(each in str(error) for each in words)
        if not known:
            raise
        raise TrainingError(
            f"out of memory, with trainer.batch_size={config.trainer.batch_size} and "
            f"evaluation.batch_size={config.evaluation.batch_size} of a {config.model.name}: "
            "try smaller ones; checkpoints are kept"
        ) from error


def report_failed_start(config: Config, folder: RunFolder, error: Exception) -> None:
    """Leave a result.json that says why a run could not begin, if the folder can be written.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.runs.result import read_result
    >>> config = open_run(run_folder).config
    >>> report_failed_start(config, RunFolder(tmp_path), ValueError("no such device"))
    >>> read_result(RunFolder(tmp_path))["error"]
    'no such device'
    """
    with suppress(CheckpointError):
        write_failed_start(folder, str(error), **named(config), config=saved_config(config))
