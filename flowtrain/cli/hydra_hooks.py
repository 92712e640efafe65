"""What Hydra asks of us: where a run goes, where its config is recorded, what a job hands on."""

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from flowtrain.cli.typed import checked, overridden, refuse_idle_settings
from flowtrain.errors import UserError
from flowtrain.runs.existing import existing_checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import owner
from flowtrain.sweeps.names import UNSAFE


class LeanReturn(Callback):
    """Hand to a sweep how a job ended, and not its configs, which stand in the job's folder.

    Hydra keeps what every job returns until the last has: 0.2 MB each.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Forget the configs of a job."""
        job_return.cfg = job_return.hydra_cfg = None


def run_folder(resume: str | None, new: str, *, _root_: DictConfig) -> str:
    """Name the run's folder, once the config is known to be valid, so that a mistake leaves none.

    Args:
        resume: the folder of a run that goes on, or None.
        new: that of a new run, without the name of its data.

    Raises:
        UserError: for an invalid config, or a folder to take over that holds no run.
    """
    from flowtrain.config.memory import refuse_beyond_memory

    raw: dict[str, Any] = OmegaConf.to_container(
        OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"]), resolve=True
    )  # type: ignore[assignment]
    overrides = [str(each) for each in _root_.hydra.overrides.task]
    config = checked(raw, overridden(raw, overrides))
    dim = config.data.dimensions
    if dim is not None:
        refuse_beyond_memory(config, dim)
    if resume is None:
        refuse_idle_settings(config, overrides)
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


# At import, because a launcher's worker imports this module and never calls main.
OmegaConf.register_new_resolver("flowtrain.folder", run_folder, replace=True)
OmegaConf.register_new_resolver("flowtrain.record", record_folder, replace=True)
OmegaConf.register_new_resolver("flowtrain.unless", unless, replace=True)
