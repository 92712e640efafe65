"""Replicas: runs that differ in their seeds alone, each an ordinary run in a folder of its own."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from flowtrain.build import pick_device
from flowtrain.config.memory import refuse_beyond_memory
from flowtrain.config.schema import Config, validate
from flowtrain.densities.density import Density
from flowtrain.errors import ConfigError
from flowtrain.evaluation.metrics import likelihood
from flowtrain.evaluation.quadrature import quadrature
from flowtrain.evaluation.spread import Spread, spreads
from flowtrain.evaluation.tags import tagged
from flowtrain.flows.flow import Flow
from flowtrain.progress import doing
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.migrate import saved_config
from flowtrain.runs.result import environment, named, write_result
from flowtrain.runs.settings import reconcile
from flowtrain.training.cuda_graph import refuse_without_cuda
from flowtrain.training.run import Run
from flowtrain.training.schedule import finished
from flowtrain.training.start import open_or_build, report_failed_start
from flowtrain.training.state import Progress
from flowtrain.training.tracking import Tracker

# The lock, metrics.jsonl and the logger's file of each replica; all else that a process keeps open.
FILES_OF_EACH, FILES_BESIDE = 3, 64


@dataclass(frozen=True)
class Replicas:
    """Runs that differ in their seeds alone, and the folder in which theirs lie.

    Attributes:
        config: of the whole; its seed is the first run's.
        folder: of the whole.
        runs: in the order of their seeds.
        recorded: of each run, the step up to which its records stand; -1 for a new one.
    """

    config: Config
    folder: RunFolder
    runs: list[Run]
    recorded: list[int]

    @property
    def going(self) -> list[Run]:
        """The runs that are not finished."""
        return [run for run in self.runs if not finished(run.config, run.progress)]

    @property
    def spreads(self) -> dict[str, Spread]:
        """The last metrics of the runs, by tag: their mean and its standard error."""
        return spreads([run.progress.metrics for run in self.runs])

    @property
    def progress(self) -> Progress:
        """Where the runs stand together: at the step that all have reached that go on."""
        each = [run.progress for run in self.runs]
        step = attrgetter("step")
        behind = min((run.progress for run in self.going), key=step, default=max(each, key=step))
        return Progress(
            step=behind.step,
            seconds=max(one.seconds for one in each),
            evaluation_seconds=sum(one.evaluation_seconds for one in each),
            last_eval_step=behind.last_eval_step,
            skipped=sum(one.skipped for one in each),
            metrics={tag: spread.mean for tag, spread in self.spreads.items()},
        )

    def rewind(self) -> None:
        """Stand where the last checkpoints do."""
        for run in self.runs:
            run.rewind()

    def report(self, status: str, **more: Any) -> None:
        """Write the result.json of every run and of the whole."""
        for run in self.runs:
            run.report(status, **more)
        self.report_whole(status, **more)

    def report_whole(self, status: str, **more: Any) -> None:
        """Write the result.json of the whole: means, and under `replicas` what they are made of."""
        progress = self.progress
        write_result(
            self.folder,
            status=status,
            **named(self.config),
            parameters=self.runs[0].parameters,
            step=progress.step,
            skipped_steps=progress.skipped,
            seconds=round(progress.seconds, 3),
            evaluation_seconds=round(progress.evaluation_seconds, 3),
            metrics=progress.metrics,
            replicas={tag: spread.as_dict() for tag, spread in self.spreads.items()},
            **more,
            environment=environment(self.runs[0].device),
            config=saved_config(self.config),
        )


def replica_config(config: Config, number: int) -> Config:
    """Return the config of a replica: of a single run, with a seed of its own and no figures.

    >>> from flowtrain.runs.load import open_run
    >>> replica_config(open_run(run_folder).config, 3).seed
    3
    """
    raw = config.model_dump()
    trainer = {**raw["trainer"], "replicas": 1, "figures": False, "capture": False}
    return validate({**raw, "seed": config.seed + number, "resume": None, "trainer": trainer})


def make_room_for_files(number: int) -> None:
    """Let this process keep the files of so many replicas open, as far as the system allows it.

    Raises:
        ConfigError: the hard limit is too low; says how many replicas it leaves room for.

    >>> make_room_for_files(2)
    """
    needed = FILES_OF_EACH * number + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        fit = (hard - FILES_BESIDE) // FILES_OF_EACH
        raise ConfigError(
            f"trainer.replicas: {number} need up to {needed} open files, the limit is {hard}: take "
            f"{f'{fit} at most, ' if fit > 1 else 'fewer, '}or raise it (ulimit -n {needed})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def open_replicas(config: Config, whole: RunFolder) -> Iterator[Replicas]:
    """Build every replica, at step 0 or as its last checkpoint left it, its folder locked inside.

    Raises:
        UserError: as `train`; its reason is left in the folder.
    """
    runs, recorded = [], []
    with ExitStack() as locks:
        try:
            if (dim := config.data.dimensions) is not None:
                refuse_beyond_memory(config, dim)
            make_room_for_files(config.trainer.replicas)
            if config.trainer.capture:
                refuse_without_cuda(pick_device(config.trainer.device, config.points_dtype))
            for number in range(config.trainer.replicas):
                folder, own = whole.replica(number), replica_config(config, number)
                folder.refuse_links()
                locks.enter_context(locked(folder.path))
                saved = checkpoint.read_newest(folder)
                if saved is not None:
                    own = validate(reconcile(saved["config"], own.model_dump()))
                with doing(f"replica {number}"):
                    run = open_or_build(own, folder, saved)
                runs.append(run)
                recorded.append(-1 if saved is None else run.progress.step)
        except Exception as error:
            if not whole.result.exists():
                report_failed_start(config, whole, error)
            raise
        yield Replicas(config, whole, runs, recorded)


@contextmanager
def tracked(replicas: Replicas) -> Iterator[tuple[Tracker, list[Tracker]]]:
    """Yield the trackers of the whole and of each."""
    with ExitStack() as entered:

        def track(folder: RunFolder, step: int, evaluated: int) -> Tracker:
            logger = replicas.config.logger
            return entered.enter_context(
                Tracker(folder, step=step, evaluated=evaluated, logger=logger)
            )

        each = [
            track(run.folder, step, run.progress.last_eval_step)
            for run, step in zip(replicas.runs, replicas.recorded, strict=True)
        ]
        progress = replicas.progress
        new = -1 in replicas.recorded
        whole = track(replicas.folder, -1 if new else progress.step, progress.last_eval_step)
        if progress.step == 0:
            for run, tracker in zip(replicas.runs, each, strict=True):
                tracker.logger.text("config", run.config.model_dump())
            whole.logger.text("config", replicas.config.model_dump())
            whole.logger.text("environment", environment(replicas.runs[0].device))
        yield whole, each


def mixture_metrics(flow: Flow, run: Run) -> dict[str, float]:
    """Return NLL and KL of a mixture in nats by the test points of a run of known density.

    No replica has seen them: each trains on points that it drew by its own seed.
    """
    grid, batch_size = run.config.evaluation.grid, run.config.evaluation.batch_size
    found = likelihood(flow, run.splits.test, batch_size=batch_size)
    density = run.splits.test.density
    if isinstance(density, Density) and density.dim <= 2:
        found |= quadrature(flow, density, points=grid, batch_size=batch_size)
    return tagged(found, "test")
