"""SIGINT and SIGTERM: the first lets a step end, the second acts at once."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.config.schema import Config
from flowtrain.training import trainer
from flowtrain.training.signals import catch_signals
from flowtrain.training.trainer import Result, train

Tiny = Callable[..., Config]


def test_the_first_signal_is_remembered_and_the_second_acts_as_usual() -> None:
    with catch_signals() as caught:
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert caught == [signal.SIGINT]


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
