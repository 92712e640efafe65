"""The sweepers that Hydra finds by the name of this package: which jobs run, through any launcher.

Hydra imports this file at every start, so that all else is imported where it is used.
"""

import itertools
import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from flowtrain.sweeps.study import Settings

SECONDS_BETWEEN_LOOKS = 5.0
MOST_JOBS = 100_000  # of a sweep: to compose them takes three hours
SUBDIR = "hydra.sweep.subdir="


@dataclass
class GridConf:
    """What hydra/sweeper=grid takes: nothing."""

    _target_: str = "hydra_plugins.flowtrain_sweepers.GridSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf)


class GridSweeper(Sweeper):
    """Run every combination of the values given, but for the jobs that are finished already."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, and have the launcher made."""
        from flowtrain.cli.launchers import fit_launcher

        fit_launcher(config)
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs that are to run; raise UserError when some failed."""
        from rich.console import Console

        from flowtrain.cli.console import SECONDS, counted
        from flowtrain.errors import UserError
        from flowtrain.files import leaving_no_empty
        from flowtrain.live import shown
        from flowtrain.progress import doing
        from flowtrain.runs.lock import locked
        from flowtrain.sweeps.plan import plan, read_jobs, refuse_folder
        from flowtrain.sweeps.report import opening, refuse_failures

        folder = Path(self.config.hydra.sweep.dir)
        choices = self._choices(arguments)
        asked = [*itertools.product(*choices.values())]
        same = [key.lstrip("+~") for key, values in choices.items() if len(values) == 1]
        varied = [key for key, values in choices.items() if len(values) > 1]
        with leaving_no_empty(folder), locked(folder):
            jobs, names = plan(folder, asked), read_jobs(folder)
            todo: dict[str, Sequence[str]] = {}
            reasons: list[str] = []
            # A tenth of a second for each: thousands of jobs take minutes.
            with shown(Console(), print, seconds=SECONDS), doing("composing"):
                for job in counted(jobs, len(jobs), "job"):
                    if job.to_run:
                        name = job.name
                        if not name:  # a new one
                            composed = self._composed(job.overrides, number=len(names))
                            name = self._name(composed, job.overrides, same)
                            refuse_folder(name, names)
                            if len(reasons) == len(todo):  # none so far would begin
                                reasons += refusal(composed, varied)
                        names[name] = todo[name] = job.overrides
            if todo and len(reasons) == len(todo):  # no job would begin
                raise UserError("\n".join(dict.fromkeys(reasons)))
            self._record(folder, arguments, names)
            for line in opening(folder, jobs):
                print(line, flush=True)
            if self.config.logger.name == "tensorboard":
                from flowtrain.config.logger import TensorBoard

                for line in TensorBoard(name="tensorboard").view(folder):
                    print(f"  {line}", flush=True)
            with closing_report(folder):
                self._launch(todo)
            refuse_failures(folder)

    def _choices(self, arguments: list[str]) -> dict[str, list[str]]:
        """Return the overrides to choose from, each once, by their keys."""
        from flowtrain.errors import UserError

        choices: dict[str, list[str]] = {}
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        for override in parser.parse_overrides(arguments):
            key = override.get_key_element()
            if not override.is_sweep_override():
                choices[key] = [f"{key}={override.get_value_element_as_str()}"]
            elif override.is_discrete_sweep():
                values = itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1)
                choices[key] = [f"{key}={value}" for value in values]
            else:
                raise UserError(
                    f"{override.input_line}: an interval has no end of values; "
                    "sweep=optuna searches it"
                )
            if not choices[key]:
                raise UserError(f"{override.input_line}: there is nothing to choose from")
        if math.prod(map(len, choices.values())) > MOST_JOBS:
            raise UserError(
                f"{' '.join(arguments)}: more than {MOST_JOBS:,} jobs, the most that a sweep may "
                "have; sweep=optuna searches among any number"
            )
        return {key: [*dict.fromkeys(values)] for key, values in choices.items()}

    def _composed(self, overrides: Sequence[str], *, number: int) -> DictConfig:
        """Return a job's config; a job that cannot be composed is refused here."""
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, [*overrides])
        with open_dict(composed):
            composed.hydra.job.num = composed.hydra.job.id = number
        return composed

    def _name(self, composed: DictConfig, overrides: Sequence[str], same: Sequence[str]) -> str:
        """Return the name of a new job's folder."""
        from flowtrain.sweeps.names import job_name

        if any(each.startswith(SUBDIR) for each in self.config.hydra.overrides.hydra):
            return str(composed.hydra.sweep.subdir)
        return job_name(overrides, same, composed.hydra.job.num)

    def _record(
        self, folder: Path, arguments: list[str], jobs: Mapping[str, Sequence[str]]
    ) -> None:
        from flowtrain.sweeps.again import SWEEPER
        from flowtrain.sweeps.plan import write_record

        own = [each for each in self.config.hydra.overrides.hydra if SWEEPER.match(each)]
        write_record(folder, [*arguments, *own], jobs)
        OmegaConf.save(self.config, folder / "multirun.yaml")

    def _launch(self, jobs: Mapping[str, Sequence[str]]) -> list[str]:
        """Launch jobs by the names of their folders, as one batch; return those that failed."""
        from flowtrain.text import for_hydra

        failed: list[str] = []
        if not jobs:
            return failed
        named = [[*overrides, f"{SUBDIR}{for_hydra(name)}"] for name, overrides in jobs.items()]
        try:
            for name, job in zip(jobs, self.launcher.launch(named, initial_job_idx=0), strict=True):
                raise_defect(job)
                if job.status == JobStatus.FAILED:
                    failed.append(name)
        except Exception as error:
            if not type(error).__module__.startswith("submitit"):
                raise
            # A job of Slurm's has left no result; its folder tells more.
            sys.stderr.write(f"flowtrain: {str(error).partition(chr(10))[0]}\n")
        return failed


@dataclass
class OptunaConf(Settings):
    """What hydra/sweeper=optuna takes."""

    _target_: str = "hydra_plugins.flowtrain_sweepers.OptunaSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf)


class OptunaSweeper(GridSweeper):
    """Run the trials that a study asks for, one batch after the other."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)

    def sweep(self, arguments: list[str]) -> None:
        """Ask, run and tell; raise UserError when trials failed."""
        from flowtrain.cli.search_space import search_space
        from flowtrain.files import leaving_no_empty
        from flowtrain.runs.lock import locked
        from flowtrain.sweeps.plan import ELSEWHERE
        from flowtrain.sweeps.report import refuse_failures
        from flowtrain.sweeps.study import open_study
        from flowtrain.sweeps.study_report import write_report

        self.settings.refuse_impossible()
        folder, trainer = Path(self.config.hydra.sweep.dir), self.config.trainer
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        listed = [f"{key}={value}" for key, value in self.settings.params.items()]
        fixed, space = search_space(parser.parse_overrides([*listed, *arguments]))
        asked = {key: value for key, value in fixed.items() if key not in ELSEWHERE}
        question = {"settings": asked, "space": {key: repr(each) for key, each in space.items()}}
        with leaving_no_empty(folder), locked(folder):
            study = open_study(
                folder, self.settings, question=question, evaluate_every=trainer.evaluate_every,
                steps=trainer.max_steps,
            )  # fmt: skip
            with closing_report(folder):
                self._search(study, folder, arguments, fixed, space)
            for line in write_report(study, folder, asked):
                print(line, flush=True)
            refuse_failures(folder, advice="the study counts them as failures")

    def _search(
        self,
        study: Any,
        folder: Path,
        arguments: list[str],
        fixed: dict[str, str],
        space: dict[str, Any],
    ) -> None:
        from flowtrain.cli.launchers import jobs_at_once
        from flowtrain.runs.standing import state_of
        from flowtrain.sweeps.plan import read_jobs
        from flowtrain.sweeps.study import next_trials, tell, trial_folder

        at_once = self.settings.n_jobs or jobs_at_once(self.config)
        names: dict[str, Sequence[str]] = {**read_jobs(folder)}
        while trials := next_trials(study, self.settings, space, at_once=at_once):
            todo = {}
            for trial in trials:
                name = trial_folder(trial.number)
                if state_of(folder / name) in ("waiting", "killed", "interrupted"):
                    values = fixed | trial.params
                    todo[name] = names[name] = [f"{key}={each}" for key, each in values.items()]
            self._record(folder, arguments, names)
            failed = self._launch(todo)
            numbers = [trial.number for trial in trials]
            told = list(tell(study, folder, numbers, failed=failed))
            if told:
                print(*told, sep="\n", flush=True)
            else:  # all are at work for a sweep that was killed
                time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def closing_report(folder: Path) -> Iterator[None]:
    """However a sweep ends, compare what is done; if it was interrupted, say how to go on."""
    from flowtrain.cli.compare import compare_sweep

    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        again = shlex.quote(f"resume_sweep={folder}")
        print(f"the sweep is interrupted; go on with\n  flowtrain -m {again}", flush=True)
        raise
    finally:
        compare_sweep(folder)


def refusal(composed: DictConfig, varied: Sequence[str]) -> list[str]:
    """Return why a job should not begin, in a list that is empty if it should.

    Args:
        composed: its config.
        varied: keys that tell the jobs apart, and so must have an effect.
    """
    from flowtrain.cli.typed import refuse_idle_settings
    from flowtrain.config.schema import validate
    from flowtrain.errors import UserError

    settings = OmegaConf.masked_copy(
        composed, [key for key in map(str, composed) if key != "hydra"]
    )
    try:
        config = validate(OmegaConf.to_container(settings, resolve=True))  # type: ignore[arg-type]
        refuse_idle_settings(config, varied)
    except UserError as error:
        return [str(error)]
    except OmegaConfBaseException:  # the job tells it better
        return []
    return []


def raise_defect(job: JobReturn) -> None:
    """Raise what ended a job, unless it is a user's mistake, which the job has told itself."""
    from flowtrain.errors import UserError

    ended: Any = job._return_value
    if job.status == JobStatus.FAILED and not isinstance(ended, UserError):
        raise ended
