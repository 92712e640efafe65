"""A study in a folder: what it asks, what it is told, and what it makes of a killed process."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowtrain.errors import UserError
from flowtrain.evaluation.images import pixels
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.lock import locked
from flowtrain.runs.result import write_result
from flowtrain.sweeps.plan import write_record
from flowtrain.sweeps.study import (
    JOURNAL,
    Settings,
    judge_of,
    next_trials,
    open_study,
    tell,
    trial_folder,
)
from flowtrain.sweeps.study_figure import study_figure
from flowtrain.sweeps.study_report import told_by, write_report

QUESTION = {"settings": {"model": "spline"}, "space": {"optimizer.lr": "any"}}
Open = Callable[..., Any]


def end(run: Path, status: str, kl: float = 0.0) -> None:
    write_result(
        RunFolder(run), status=status, model="spline", data="moons", seed=0, parameters=1, step=5,
        seconds=1.0, metrics={"kl/val": kl, "nll/val": kl + 2},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "cma"}, "sampler: 'cma' is unknown; choose from tpe, random, grid"),
        ({"pruner": "x"}, "pruner: 'x' is unknown; choose from median, hyperband, none"),
        ({"n_trials": 0}, "n_trials: it should be at least 1"),
        ({"n_jobs": 0}, "n_jobs: it should be at least 1"),
        ({"startup_trials": -1}, "startup_trials: it should be at least 0"),
        ({"seed": -1}, "seed: it should be at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Settings(**settings).refuse_impossible()


def test_a_run_of_no_study_is_not_judged(tmp_path: Path) -> None:
    assert judge_of(tmp_path / "0-trial") is None


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"is an extra: pip install 'flowtrain\[optuna\]'"):
        open_study(tmp_path, Settings(), question=QUESTION, evaluate_every=1, steps=1)


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Return a function that opens the study of a folder."""
    pytest.importorskip("optuna")

    def opened(settings: Settings, **asked: Any) -> Any:
        question = QUESTION | asked
        return open_study(tmp_path, settings, question=question, evaluate_every=10, steps=100)

    return opened


@pytest.fixture
def space() -> dict[str, Any]:
    distributions = pytest.importorskip("optuna.distributions")
    return {
        "optimizer.lr": distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "model.couplings": distributions.IntDistribution(1, 3),
    }


def search(opened: Open, settings: Settings, space: Any, sweep: Path, *, batches: int) -> Any:
    """Run batches of a search whose figure is known, each in a study opened anew."""
    for _ in range(batches):
        study = opened(settings)
        trials = next_trials(study, settings, space, at_once=1)
        for trial in trials:
            value = abs(math.log10(trial.params["optimizer.lr"]) + 2)
            end(sweep / trial_folder(trial.number), "completed", value)
        list(tell(study, sweep, [trial.number for trial in trials]))
    return opened(settings)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_that_stops_asks_what_it_would_have_asked(
    opened: Open, space: Any, tmp_path: Path, sampler: str
) -> None:
    settings = Settings(n_trials=8, sampler=sampler, startup_trials=3)
    study = search(opened, settings, space, tmp_path, batches=10)
    first = [(trial.params, trial.value) for trial in study.trials]
    assert len(first) == 8
    (tmp_path / JOURNAL).unlink()
    search(opened, settings, space, tmp_path, batches=4)
    study = opened(settings)
    next_trials(study, settings, space, at_once=1)  # killed after it has asked
    again = search(opened, settings, space, tmp_path, batches=4)
    assert [(trial.params, trial.value) for trial in again.trials] == first


def test_a_trial_that_was_half_asked_has_every_value(opened: Open, space: Any) -> None:
    settings = Settings(n_trials=2)
    opened(settings).ask({"optimizer.lr": space["optimizer.lr"]})  # killed before the other value
    (trial,) = next_trials(opened(settings), settings, space, at_once=1)
    assert (trial.number, trial.params.keys()) == (0, space.keys())


def test_a_batch_is_told_before_another_is_asked(opened: Open, space: Any, tmp_path: Path) -> None:
    settings = Settings(n_trials=5)
    study = opened(settings)
    first = next_trials(study, settings, space, at_once=2)
    for trial in first:
        end(tmp_path / trial_folder(trial.number), "completed")
    list(tell(study, tmp_path, [0]))  # killed before it tells of the other
    (left,) = next_trials(opened(settings), settings, space, at_once=2)
    assert left.number == 1
    list(tell(study, tmp_path, [1]))
    for expected in ([2, 3], [4], []):
        batch = next_trials(opened(settings), settings, space, at_once=2)
        assert [trial.number for trial in batch] == expected
        for number in expected:
            end(tmp_path / trial_folder(number), "completed")
        list(tell(study, tmp_path, expected))


def test_a_grid_has_every_point_once_and_ends(opened: Open, tmp_path: Path) -> None:
    distributions = pytest.importorskip("optuna.distributions")
    space = {
        "model": distributions.CategoricalDistribution(["glow", "spline"]),
        "model.couplings": distributions.IntDistribution(1, 5, step=2),
    }
    settings = Settings(sampler="grid")
    study = opened(settings)
    while trials := next_trials(study, settings, space, at_once=4):
        for trial in trials:
            end(tmp_path / trial_folder(trial.number), "completed")
        list(tell(study, tmp_path, [trial.number for trial in trials]))
    points = [(trial.params["model"], trial.params["model.couplings"]) for trial in study.trials]
    assert points == [(model, number) for model in ("glow", "spline") for number in (1, 3, 5)]
    interval = {"optimizer.lr": distributions.FloatDistribution(0.0, 1.0)}
    with pytest.raises(UserError, match=r"optimizer\.lr: a grid needs single values"):
        next_trials(study, settings, interval, at_once=1)


def test_of_a_huge_grid_the_first_trials_alone_are_made(opened: Open) -> None:
    distributions = pytest.importorskip("optuna.distributions")
    space = {key: distributions.IntDistribution(1, 1000) for key in ("a", "b", "c", "d")}
    settings = Settings(sampler="grid", n_trials=3)
    first = next_trials(opened(settings), settings, space, at_once=8)
    assert [trial.params["d"] for trial in first] == [1, 2, 3]


def test_trials_of_an_unknown_number_of_steps_are_judged(space: Any, tmp_path: Path) -> None:
    settings = Settings(pruner="hyperband", seed=10**6)
    study = open_study(
        tmp_path, settings, question=QUESTION, evaluate_every="auto", steps=None
    )  # a table's, or one that seconds end
    (trial,) = next_trials(study, settings, space, at_once=1)
    judge = judge_of(tmp_path / trial_folder(trial.number))
    assert judge is not None
    assert not judge(10, {"kl/val": 1.0, "nll/val": 3.0})


def test_a_study_is_told_what_the_folders_hold(opened: Open, space: Any, tmp_path: Path) -> None:
    settings = Settings(n_trials=6)
    study = opened(settings)
    trials = next_trials(study, settings, space, at_once=5)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    for number, status in enumerate(("completed", "pruned", "failed", "running")):
        end(tmp_path / trial_folder(number), status, 0.25)
    end(tmp_path / trial_folder(4), "running")
    with locked(tmp_path / trial_folder(4)):
        lines = list(tell(study, tmp_path, range(5)))
    assert lines == [
        "trial 0: 0.25000; best: trial 0, 0.25000", "trial 1: pruned", "trial 2: failed",
        "trial 3: killed",
    ]  # fmt: skip
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "RUNNING"]
    again = next_trials(opened(settings), settings, space, at_once=5)
    assert [trial.number for trial in again] == [4]  # one at work, and no more
    end(tmp_path / trial_folder(4), "interrupted")
    with pytest.raises(KeyboardInterrupt):
        list(tell(study, tmp_path, [4]))
    with locked(tmp_path / trial_folder(4)):  # by a job of an earlier sweep
        assert list(tell(study, tmp_path, [4], failed=["4-trial"])) == []
    assert list(tell(study, tmp_path, [4], failed=["4-trial"])) == ["trial 4: failed"]
    (last,) = next_trials(study, settings, space, at_once=5)
    end(tmp_path / trial_folder(last.number), "completed", 0.5)
    (told,) = tell(study, tmp_path, [5], failed=["5-trial"])
    assert told.startswith("trial 5: 0.50000; ")


def test_another_question_is_refused(opened: Open, tmp_path: Path) -> None:
    opened(Settings())
    with pytest.raises(UserError) as refused:
        opened(Settings(n_trials=99), space={"optimizer.lr": "other"})
    assert str(refused.value).startswith(f"{tmp_path} holds another study: its space differ; ")


def test_a_grid_is_no_study(opened: Open, tmp_path: Path) -> None:
    write_record(tmp_path, ["seed=0"], {"seed=0": ["seed=0"]})
    with pytest.raises(UserError, match="holds a sweep that is no search; give this one a folder"):
        opened(Settings())


def test_half_a_line_of_a_killed_writer_is_cut_off(
    opened: Open, space: Any, tmp_path: Path
) -> None:
    settings = Settings(n_trials=3)
    search(opened, settings, space, tmp_path, batches=2)
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + b'{"op_code":5,"wor')
    study = search(opened, settings, space, tmp_path, batches=1)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert (tmp_path / JOURNAL).read_bytes().startswith(whole)
    assert all(json.loads(line) for line in (tmp_path / JOURNAL).read_bytes().splitlines())


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_a_hopeless_trial_is_given_up_through_the_journal(
    opened: Open, space: Any, tmp_path: Path, pruner: str
) -> None:
    settings = Settings(pruner=pruner, startup_trials=1, sampler="random")
    study = opened(settings)
    given_up = []
    for number in range(8):
        next_trials(study, settings, space, at_once=1)
        hopeless = judge_of(tmp_path / trial_folder(number))
        assert hopeless is not None
        kl = 0.1 if number < 4 else 9.0
        stopped = [hopeless(step, {"nll/val": 1.0, "kl/val": kl}) for step in (10, 20, 30)]
        given_up.append(any(stopped))
        hopeless(30, {"nll/val": 1.0, "kl/val": 0.0})  # a resumed trial comes by again
        end(tmp_path / trial_folder(number), "pruned" if any(stopped) else "completed", kl)
        list(tell(study, tmp_path, [number]))
        run = tmp_path / trial_folder(number)
        assert judge_of(run, by_hand=True) is None  # it may go on for its own sake
        late = judge_of(run)  # a second job for it, that waited in the queue
        assert late is None if not any(stopped) else late is not None and late(30, {})
    assert not any(given_up[:4]) or pruner == "hyperband"
    assert any(given_up[4:]) == (pruner != "none")
    reported = study.trials[0].intermediate_values
    assert reported == {10: 0.1, 20: 0.1, 30: 0.1}


def test_the_report_has_a_command_to_paste_and_a_picture(
    opened: Open, space: Any, tmp_path: Path
) -> None:
    settings = Settings(n_trials=6, sampler="random")
    study = opened(settings)
    assert list(write_report(study, tmp_path, {})) == []
    search(opened, settings, space, tmp_path, batches=6)
    study = opened(settings)
    first, command, files = write_report(study, tmp_path, {"model": "spline"})
    best = study.best_trial
    assert first.startswith(f"best of 6 trials (6 complete): trial {best.number}, {best.value:.5f}")
    lr, couplings = best.params["optimizer.lr"], best.params["model.couplings"]
    typed = f"flowtrain model=spline optimizer.lr={lr} model.couplings={couplings}"
    assert command == f"  {typed}"
    assert "| optimizer.lr |" in (tmp_path / "study.md").read_text()
    assert (tmp_path / "study.png").read_bytes()[1:4] == b"PNG"
    assert "study.png" in files


def trial(number: int, state: str, **params: Any) -> Any:
    spaces = {
        "a": SimpleNamespace(choices=("x", "y")),
        "lr": SimpleNamespace(low=0.003, high=0.03, step=None, log=True),
        "couplings": SimpleNamespace(low=2, high=8, step=2, log=False),
        "bins": SimpleNamespace(low=4, high=40, step=1, log=False),
    }
    return SimpleNamespace(
        number=number, state=SimpleNamespace(name=state), value=float(number + 1), params=params,
        intermediate_values={10: 20.0 * number}, distributions=spaces,
    )  # fmt: skip


def ticks(axis: Any) -> list[str]:
    """Return what is written along an axis within its view."""
    low, high = sorted(axis.get_view_interval())
    pairs = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [label.get_text() for place, label in pairs if low <= place <= high]


def test_the_picture_shows_numbers_and_choices() -> None:
    trials = [
        trial(0, "COMPLETE", a="x", lr=0.01),
        trial(1, "PRUNED", a="y", lr=0.02),
        trial(2, "COMPLETE", a="y", lr=0.03),
    ]
    figure = study_figure(trials, ["a", "lr"], told="KL")
    over_trials, a, lr = figure.axes
    assert ticks(a.xaxis) == ["x", "y"]
    assert (lr.get_xscale(), over_trials.get_yscale()) == ("log", "log")
    assert over_trials.get_ylabel() == "validation KL (nats)"
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["completed", "pruned, its last figure", "best so far"]


def test_the_picture_of_two_trials_has_whole_numbers_and_names_nothing_that_is_not_there() -> None:
    trials = [trial(n, "COMPLETE", lr=0.01, couplings=4, bins=9 + n) for n in range(2)]
    figure = study_figure(trials, ["lr", "couplings", "bins"], told="NLL")
    pixels(figure)
    over_trials, lr, couplings, bins = figure.axes
    assert ticks(over_trials.xaxis) == ["0", "1"]
    assert ticks(lr.xaxis) == ["0.005", "0.01", "0.02"]  # of the range that was searched
    assert ticks(couplings.xaxis) == ["2", "4", "6", "8"]
    assert ticks(bins.xaxis) == ["10", "20", "30", "40"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["completed", "best so far"]


def test_the_picture_of_one_trial_stands_on_its_number() -> None:
    figure = study_figure([trial(0, "COMPLETE", a="x")], ["a"], told="NLL")
    pixels(figure)
    assert ticks(figure.axes[0].xaxis) == ["0"]


def test_many_settings_stand_in_rows_and_long_choices_aslant() -> None:
    names = ["a_long_name_of_a_choice", "another_of_them"]
    many = trial(0, "COMPLETE", **dict.fromkeys("abcde", names[0]))
    many.distributions = dict.fromkeys("abcde", SimpleNamespace(choices=names))
    figure = study_figure([many], "abcde", told="KL")
    assert len({axes.get_subplotspec().rowspan.start for axes in figure.axes}) == 2  # type: ignore[union-attr]
    assert {label.get_rotation() for label in figure.axes[1].get_xticklabels()} == {30}


def test_trials_are_told_by_what_their_results_hold(tmp_path: Path) -> None:
    end(tmp_path / trial_folder(0), "completed", kl=0.1)
    assert told_by(tmp_path, [0, 1]) == "KL"  # the folder of the other is gone
    write_result(RunFolder(tmp_path / trial_folder(1)), status="completed", metrics={"nll/val": 2})
    assert told_by(tmp_path, [0, 1]) == "KL or NLL"
