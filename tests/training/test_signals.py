"""SIGINT and SIGTERM: the first lets a step end, the second acts at once."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.config.schema import Config
from flowtrain.training import trainer
from flowtrain.training.signals import catch_signals
from flowtrain.training.trainer import Result, train

Tiny = Callable[..., Config]


def test_the_first_signal_is_remembered_and_the_second_ends_the_program() -> None:
    with catch_signals() as caught:
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert caught == [signal.SIGINT]


def test_a_second_sigterm_ends_the_program_with_its_status() -> None:
    with catch_signals() as caught:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
    assert (caught, ended.value.code) == ([signal.SIGTERM], 143)


def test_the_first_signal_is_answered_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="flowtrain"), catch_signals():
        signal.raise_signal(signal.SIGINT)
        assert caplog.messages == [
            "stopping after this step or evaluation; once more to stop at once"
        ]


@pytest.mark.parametrize("place", ["training_metrics", "draw"])
@pytest.mark.parametrize(
    ("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_two_signals_in_an_evaluation_lose_no_step(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, signum: int,
    error: type[BaseException],
) -> None:  # fmt: skip
    whole = train(tiny(), tmp_path / "whole")
    original = getattr(trainer, place)
    calls: list[int] = []

    def struck(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:  # the evaluation of step 10
            signal.raise_signal(signum)
            signal.raise_signal(signum)
        return original(*arguments, **options)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, place, struck)
        with pytest.raises(error):
            train(tiny("trainer.figures=true"), run)
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["step"]) == ("interrupted", 10)
    again = train(tiny(), run)
    assert again.metrics == whole.metrics
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line["step"] for line in lines if "nll/val" in line]
    assert evaluated == [0, 10, 20]


def test_the_handlers_are_restored_whatever_happens() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with catch_signals():
        assert before != [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), catch_signals():
        raise ZeroDivisionError
    assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]


def test_a_thread_other_than_the_main_one_catches_none() -> None:
    found: list[object] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        with catch_signals() as caught:
            found.append((caught, signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], True)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_train_returns_the_signal_that_stopped_it_and_restores_its_handlers(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(trainer, "train_step", lambda run, tracker: signal.raise_signal(signum))
    result: Result = train(tiny(), tmp_path)
    assert (result.status, result.signal) == ("interrupted", signum)
    assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
