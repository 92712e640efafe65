"""A study of Optuna's in a sweep's folder: which trials come next, and which have no hope."""

import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowtrain.errors import UserError
from flowtrain.evaluation.tags import validated
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.runs.standing import ENDED, state_of
from flowtrain.sweeps.plan import read_jobs

JOURNAL = "study.journal"
NAME = "flowtrain"
Judge = Callable[[int, dict[str, float]], bool]
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")
FAR_APART = 100_003  # between the seeds of studies; those of a study's trials are neighbours


@dataclass
class Settings:
    """How a space is searched; conf/sweep/optuna.yaml explains each."""

    n_trials: int = 20
    n_jobs: int | None = None
    sampler: str = "tpe"
    pruner: str = "median"
    startup_trials: int = 5
    seed: int = 0
    params: dict[str, Any] = field(default_factory=dict)

    def refuse_impossible(self) -> None:
        """Refuse settings that no study can have.

        Raises:
            UserError: names the setting and what is allowed.
        """
        for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, key) not in known:
                raise UserError(
                    f"hydra.sweeper.{key}: {getattr(self, key)!r} is unknown; choose from "
                    f"{', '.join(known)}"
                )
        for key, least in (("n_trials", 1), ("n_jobs", 1), ("startup_trials", 0), ("seed", 0)):
            if getattr(self, key) is not None and getattr(self, key) < least:
                raise UserError(f"hydra.sweeper.{key}: it should be at least {least}")


def trial_folder(number: int) -> str:
    """Return the name of a trial's folder in the sweep's.

    >>> trial_folder(7)
    '7-trial'
    """
    return f"{number}-trial"


def open_study(
    sweep: Path,
    settings: Settings,
    *,
    question: Mapping[str, Any],
    evaluate_every: int | str,
    steps: int | str | None,
) -> Any:
    """Open the study in a sweep's folder, a new one or the one that it holds.

    Args:
        sweep: the folder.
        settings: of the search.
        question: what is asked, as JSON can hold it: another one has a folder of its own.
        evaluate_every: steps between two figures that a trial reports; "auto" hangs on its data.
        steps: of a trial; "auto" likewise, None where time ends it.

    Raises:
        UserError: Optuna is not installed, or the folder holds another study or a grid.
    """
    optuna = _optuna()
    if read_jobs(sweep) and not (sweep / JOURNAL).exists():
        raise UserError(
            f"{sweep} holds a sweep that is no search; give this one a folder of its own by "
            "hydra.sweep.dir"
        )
    _mend(sweep / JOURNAL)
    study = optuna.create_study(study_name=NAME, storage=_storage(sweep), load_if_exists=True)
    held = study.user_attrs.get("question")
    if held is None:
        study.set_user_attr("question", dict(question))
    elif held != json.loads(json.dumps(question)):
        changed = [key for key in question if held.get(key) != question[key]]
        raise UserError(
            f"{sweep} holds another study: its {', '.join(changed)} differ; give this one a folder "
            "of its own by hydra.sweep.dir"
        )
    known = [each for each in (evaluate_every, steps) if isinstance(each, int)]
    pruning = {
        "name": settings.pruner, "startup_trials": settings.startup_trials,
        "least": min(known, default=1), "most": steps if isinstance(steps, int) else "auto",
    }  # fmt: skip
    study.set_user_attr("pruning", pruning)
    return study


def next_trials(
    study: Any, settings: Settings, space: dict[str, Any], *, at_once: int
) -> list[Any]:
    """Return the trials to run now, a batch, some of it begun or told before; none at the end.

    The sampler of every trial has a seed of its own, and a batch is told before another is asked,
    so that a study that was stopped asks what it would have asked.

    Args:
        study: as `open_study` returns it.
        settings: of the search.
        space: Optuna's distributions by key.
        at_once: trials at a time.
    """
    trials = study.get_trials(deepcopy=False)
    begun = [
        _whole(study, settings, trial, space) for trial in trials if trial.state.name == "RUNNING"
    ]
    asked = sum(trial.state.name != "WAITING" for trial in trials)
    points = _grid(space, settings.n_trials) if settings.sampler == "grid" else None
    last = settings.n_trials if points is None else len(points)
    first = begun[0].number if begun else asked
    for number in range(asked, min(last, first - first % at_once + at_once)):
        study.sampler = _sampler(settings, number)
        if points is not None and number >= len(trials):  # else a killed process has put it there
            study.enqueue_trial(points[number])
        begun.append(study.ask(space))
    return begun[:at_once]


def _whole(study: Any, settings: Settings, trial: Any, space: dict[str, Any]) -> Any:
    """Return a trial that has begun, with the values that a process killed in `ask` left open."""
    if trial.params.keys() >= space.keys():
        return trial
    study.sampler = _sampler(settings, trial.number)
    asked = _optuna().trial.Trial(study, trial._trial_id)
    for key, each in space.items():  # as `ask` does
        asked._suggest(key, each)
    return asked


def tell(
    study: Any, sweep: Path, numbers: Iterable[int], *, failed: Collection[str] = ()
) -> Iterator[str]:
    """Tell a study how trials ended, by what their folders hold; yield a line for each.

    A trial at work is left alone. One that has come to no end, though it was launched, has failed.

    Args:
        study: as `open_study` returns it.
        sweep: the folder.
        numbers: of trials that have not been told.
        failed: folders whose job failed here. If another job still works on the trial, or has
            ended it, the trial has not failed.

    Raises:
        KeyboardInterrupt: a trial was interrupted.
    """
    states = _optuna().trial.TrialState
    for number in numbers:
        run = sweep / trial_folder(number)
        state = state_of(run)
        match "failed" if run.name in failed and state not in (*ENDED, "running") else state:
            case "running":
                continue
            case "interrupted":
                raise KeyboardInterrupt
            case "completed":
                value = validated(read_result(RunFolder(run))["metrics"])
                study.tell(number, value)
                best = study.best_trial
                yield f"trial {number}: {value:.5f}; best: trial {best.number}, {best.value:.5f}"
            case "pruned":
                study.tell(number, state=states.PRUNED)
                yield f"trial {number}: pruned"
            case state:
                study.tell(number, state=states.FAIL)
                yield f"trial {number}: {state}"


def judge_of(run: Path, *, by_hand: bool = False) -> Judge | None:
    """Return what the trial in a folder reports its evaluations to; None for a run of no study.

    It takes a step and the metrics of its evaluation, and says whether there is no hope.

    Args:
        run: the folder of a run, in that of its sweep.
        by_hand: whether it is no job of the sweep: it goes on for its own sake, even if the study
            has given it up.

    >>> judge_of(run_folder) is None
    True
    """
    if not (run.parent / JOURNAL).exists() or not re.fullmatch(r"\d+-trial", run.name):
        return None
    optuna, number = _optuna(), int(run.name.partition("-")[0])
    study = optuna.load_study(study_name=NAME, storage=_storage(run.parent))
    study.pruner = _pruner(**study.user_attrs["pruning"])
    study.sampler = optuna.samplers.RandomSampler(seed=0)  # it is not asked
    frozen = study.get_trials(deepcopy=False)[number]
    if frozen.state.is_finished():  # the study has its answer
        given_up = frozen.state.name == "PRUNED" and not by_hand
        return (lambda step, metrics: True) if given_up else None
    trial = optuna.Trial(study, frozen._trial_id)

    def hopeless(step: int, metrics: dict[str, float]) -> bool:
        if step not in study.get_trials(deepcopy=False)[number].intermediate_values:
            trial.report(validated(metrics), step)  # else it comes by again, resumed
        return bool(trial.should_prune())

    return hopeless


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError("sweep=optuna is an extra: pip install 'flowtrain[optuna]'") from None
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _storage(sweep: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(sweep / JOURNAL)))


def _mend(journal: Path) -> None:
    """Cut off the half of a line that a killed writer left; no reader could go past it."""
    from optuna.storages.journal import JournalFileSymlinkLock

    if not journal.exists() or journal.read_bytes()[-1:] in (b"\n", b""):
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()  # now no one is in the midst of a line
    try:
        whole = journal.read_bytes().rpartition(b"\n")
        os.truncate(journal, len(whole[0]) + len(whole[1]))
    finally:
        lock.release()


def _pruner(name: str, startup_trials: int, least: int, most: int | str) -> Any:
    pruners = _optuna().pruners
    match name:
        case "median":
            return pruners.MedianPruner(n_startup_trials=startup_trials)
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=least, max_resource=most)
    return pruners.NopPruner()


def _sampler(settings: Settings, number: int) -> Any:
    samplers = _optuna().samplers
    seed = (settings.seed * FAR_APART + number) % 2**32  # as many as numpy has
    if settings.sampler != "tpe":
        return samplers.RandomSampler(seed=seed)
    return samplers.TPESampler(
        seed=seed, n_startup_trials=settings.startup_trials, multivariate=True, constant_liar=True
    )


def _grid(space: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Return the points of a space, so many at most, the last key running fastest."""
    values = []
    for key, each in space.items():
        if hasattr(each, "choices"):
            values.append(list(each.choices))
        elif each.step is None or each.log:
            raise UserError(f"{key}: a grid needs single values: choice(...) or range(...)")
        else:
            count = round((each.high - each.low) / each.step) + 1
            values.append([each.low + position * each.step for position in range(count)])
    points = itertools.islice(itertools.product(*values), most)
    return [dict(zip(space, point, strict=True)) for point in points]
