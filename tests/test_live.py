"""The line that moves: what it says at any width, and the lines where nothing can move."""

import io
import logging
import os
import pty
import re
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from flowtrain.live import _Line, console_lines, fitted, shown
from flowtrain.progress import doing, done, listening, part

DETAILS = ("step 1,240/5,000", "KL 0.0312", "loss 2.4123", "5.12 steps/s", "nfe 62")


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("flowtrain.live.time.monotonic", clock)
    return clock


def drawn(line: _Line, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(line)
    return captured.get()


@pytest.mark.parametrize("width", [20, 30, 40, 60, 79, 80, 120, 200])
def test_a_line_never_wraps_and_keeps_what_matters_most(clock: Clock, width: int) -> None:
    line = _Line(lambda _: None)
    line.hear("", 0.0, ())
    clock.now += 60
    line.hear("", 0.25, DETAILS)
    text = drawn(line, width)
    assert text.count("\n") == 1
    assert len(text.rstrip("\n")) < width
    assert text.rstrip().endswith("3:00 left")
    shown = [piece for piece in DETAILS if piece in text]
    assert shown == [*DETAILS[: len(shown)]]
    assert len(shown) >= {20: 0, 30: 0, 40: 1, 60: 3}.get(width, 5)


def test_the_time_left_counts_down_and_survives_an_evaluation(clock: Clock) -> None:
    line = _Line(lambda _: None)
    line.hear("", 0.5, ())  # a run that goes on
    clock.now += 10
    line.hear("", 0.6, ("step 6/10",))
    assert line.text(80) == "step 6/10  0:40 left"
    clock.now += 4
    assert line.text(80) == "step 6/10  0:36 left"
    line.hear("evaluating", 0.0, ())
    clock.now += 6
    assert line.text(80) == "evaluating  0:06"
    line.hear("", 0.6, ())
    assert line.text(80) == "step 6/10  0:30 left"


def test_work_in_parts_is_counted_once() -> None:
    heard: list[tuple[str, float]] = []
    with listening(lambda what, at, _: heard.append((what, at))), doing("evaluating"):
        for batch in range(2):
            with part(batch / 2, (batch + 1) / 2):
                done(0.5)
    assert [at for _, at in heard] == [0.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0]
    assert {what for what, _ in heard} == {"evaluating"}


def test_where_nothing_can_move_lines_come_at_growing_intervals(clock: Clock) -> None:
    said: list[tuple[float, str]] = []
    with shown(Console(file=io.StringIO()), lambda line: said.append((clock.now - 100, line))):
        for step in range(1, 401):
            done(step / 400, f"step {step}/400")
            clock.now += 1
    assert said[0][1].startswith("  0%  step 1/400  ")
    assert [when for when, _ in said] == [0, 5, 15, 35, 75, 135, 195, 255, 315, 375]


def test_long_work_has_lines_and_short_work_has_none(clock: Clock) -> None:
    said: list[str] = []
    with shown(Console(file=io.StringIO()), said.append), doing("evaluating"):
        done(0.1)
        assert said == []
        clock.now += 8
        done(0.4)
    assert said == [" 40%  evaluating  0:08"]


def test_a_wide_letter_counts_as_two() -> None:
    text = fitted(["読む読む読む"], "0:03", 14)
    assert (cell_len(text), text[-7:]) == (14, "…  0:03")


def in_terminal(columns: int, *command: str, cwd: Path) -> tuple[bytes, int]:
    """Run a command in a terminal so wide; return the bytes of its screen, and its status."""
    child, screen = pty.fork()
    if child == 0:
        os.chdir(cwd)
        # An environment of its own: readline sets COLUMNS where os.environ does not see it.
        known = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        os.execve(command[0], command, known | {"TERM": "xterm-256color"})
    ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # the child closed it
            break
        if not piece:
            break
        seen += piece
    os.close(screen)
    return seen, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("columns", [60])
def test_the_bytes_of_a_run_s_screen_never_wrap(
    tmp_path: Path, tiny_overrides: list[str], columns: int
) -> None:
    program = [sys.executable, "-m", "flowtrain"]
    more = ["trainer.max_steps=1000", "trainer.evaluate_every=500", "trainer.figures=true"]
    asked = [*tiny_overrides, *more, "hydra.run.dir=run"]
    seen, status = in_terminal(columns, *program, *asked, cwd=tmp_path)
    assert status == 0
    lines = re.split(r"\r\n|\r", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()))
    moving = [line for line in lines if "━" in line]
    assert max(map(len, moving)) < columns
    for what in (
        "loading torch",
        "drawing step 500",
        r"step \d+/1,000  KL -?\d",
        r"loss \d",
        "left",
    ):
        assert any(re.search(what, line) for line in moving), what
    logged = (tmp_path / "run" / "flowtrain.log").read_text()
    assert "step 1/1,000  KL " in logged  # the lines at intervals are there
    assert not any("INFO" in line or "step 1/1,000" in line for line in lines if line not in moving)


def test_the_log_is_told_above_the_line_and_left_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("flowtrain")
    with console_lines(prefix="job 3: "), doing("evaluating"):
        log.info("step %d", 7)
    assert capsys.readouterr().out == "job 3: step 7\n"
    assert log.handlers == []


def test_a_notebook_gets_lines_of_text_that_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    consoles: list[Console] = []

    def notebook(*, highlight: bool) -> Console:
        consoles.append(Console(force_jupyter=True, highlight=highlight))
        return consoles[-1]

    monkeypatch.setattr("flowtrain.live.Console", notebook)
    monkeypatch.setattr("flowtrain.live.find_spec", lambda _: None)  # no ipywidgets: none moves
    with console_lines():
        logging.getLogger("flowtrain").info("step 10  NLL 2.4")
    assert capsys.readouterr().out == "step 10  NLL 2.4\n"
    assert consoles[0].width == 80
