"""Signals that stop a run: the first lets a step end, the second acts at once; who is told."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtrain.config.schema import Config
from flowtrain.training import signals, trainer, validation
from flowtrain.training.outcome import Result
from flowtrain.training.signals import STOPPING, catch_signals, pass_on
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]


@pytest.fixture(autouse=True)
def no_nohup() -> Iterator[None]:
    """Let SIGHUP end a process, as it does where the tests are not run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_the_first_signal_is_remembered_and_the_second_ends_the_program() -> None:
    with catch_signals() as caught:
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert caught == [signal.SIGINT]


@pytest.mark.parametrize("signum", [each for each in STOPPING if each != signal.SIGINT])
def test_a_second_signal_ends_the_program_with_its_status(
    signum: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with catch_signals() as caught:
        signal.raise_signal(signum)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signum)
    assert (caught, ended.value.code) == ([signum], 128 + signum)


def test_slurm_tells_twice_and_the_step_is_saved_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with caplog.at_level("INFO", logger="flowtrain"), catch_signals() as caught:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):  # of a user at a terminal
            signal.raise_signal(signal.SIGINT)
    assert caught == [signal.SIGTERM]
    assert caplog.messages == ["stopping after this step or evaluation"]


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals() as caught:
            signal.raise_signal(signal.SIGHUP)
        assert caught == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_batch_system_s_signal_is_passed_on_to_its_handler(signum: signal.Signals) -> None:
    told: list[int] = []
    before = signal.signal(signum, lambda number, _: told.append(number))
    try:
        pass_on(signum)
    finally:
        signal.signal(signum, before)
    pass_on(signum)  # nobody handles it: nothing happens
    assert told == [signum]


@pytest.mark.parametrize(
    ("signum", "slurm", "waits"),
    [(signal.SIGTERM, True, True), (signal.SIGTERM, False, False), (signal.SIGINT, True, False)],
)
def test_slurm_is_waited_for_after_sigterm(
    monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, slurm: bool, waits: bool
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "1")
    pass_on(signum)
    assert slept == ([signals.PREEMPTED_WITHIN] if waits else [])


def test_the_first_signal_is_answered_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="flowtrain"), catch_signals():
        signal.raise_signal(signal.SIGINT)
        assert caplog.messages == [
            "stopping after this step or evaluation; once more to stop at once"
        ]


@pytest.mark.parametrize(("place", "call"), [("training_metrics", 2), ("draw", 1)])
@pytest.mark.parametrize(
    ("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_two_signals_in_an_evaluation_lose_no_step(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, call: int,
    signum: int, error: type[BaseException],
) -> None:  # fmt: skip
    whole = train(tiny(), tmp_path / "whole")
    original = getattr(validation, place)
    calls: list[int] = []

    def struck(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:  # the evaluation of step 10
            signal.raise_signal(signum)
            signal.raise_signal(signum)
        return original(*arguments, **options)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(validation, place, struck)
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
    before = [*map(signal.getsignal, STOPPING)]
    with catch_signals():
        assert not {*before} & {*map(signal.getsignal, STOPPING)}
    with pytest.raises(ZeroDivisionError), catch_signals():
        raise ZeroDivisionError
    assert before == [*map(signal.getsignal, STOPPING)]


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


@pytest.mark.parametrize("signum", STOPPING)
def test_train_returns_the_signal_that_stopped_it_and_restores_its_handlers(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    before = [*map(signal.getsignal, STOPPING)]
    monkeypatch.setattr(trainer, "train_step", lambda run, tracker: signal.raise_signal(signum))
    result: Result = train(tiny(), tmp_path)
    assert (result.status, result.signal) == ("interrupted", signum)
    assert before == [*map(signal.getsignal, STOPPING)]


def test_a_closed_terminal_ends_a_run_as_ctrl_c_does(
    tiny_overrides: list[str], tmp_path: Path
) -> None:
    ours, terminal = pty.openpty()
    endless = ["trainer.max_steps=1000000", "trainer.evaluate_every=1000000", "hydra.run.dir=run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flowtrain", *tiny_overrides, *endless],
        cwd=tmp_path, start_new_session=True, stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    try:
        shown = b""
        while b"/1,000,000" not in shown:
            shown += os.read(ours, 4096)
        os.close(ours)  # from now on writing is an error
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 128 + signal.SIGHUP
    finally:
        process.kill()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert f"interrupted at step {result['step']};" in (tmp_path / "run/flowtrain.log").read_text()
