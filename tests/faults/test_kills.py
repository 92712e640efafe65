"""SIGKILL at any moment, inside writes too: the run resumes and ends as if it was left alone."""

import math
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flowtrain.training.state import Progress
from flowtrain.training.tracking import Tracker

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.faults

Start = Callable[..., Any]
SameEnd = Callable[[Path, Path, str], None]

LENGTH = (
    "data=gaussian_mixture", "trainer=debug", "trainer.device=cpu", "trainer.figures=false",
    "trainer.batch_size=32", "trainer.max_steps=12", "trainer.log_every=2",
    "trainer.evaluate_every=4", "splits.train=256", "splits.val=32", "splits.test=32",
    "evaluation.grid=16", "hydra.run.dir=run",
)  # fmt: skip
FFJORD = ("model=ffjord", "model.width=8", "model.depth=1", "solver@evaluation.solver=bosh3")
KINDS = {
    "realnvp": ("model=realnvp", "model.couplings=2", "model.hidden=8", "model.depth=1"),
    "spline": ("model=spline", "model.couplings=2", "model.hidden=8", "model.depth=1"),
    "ffjord": (*FFJORD, "objective=maximum_likelihood", "solver=bosh3"),
    "flow matching": (*FFJORD, "objective=flow_matching", "solver=none"),
    "flow matching, then likelihood": (
        *FFJORD, "objective=flow_matching_then_likelihood", "solver=bosh3",
    ),
}  # fmt: skip


def tear(descriptor: int) -> None:
    """Cut off the end of what was just written, as if its last block never came to the disk."""
    if size := os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, max(0, size - 7))


def at_writes(strike: Callable[[int | None], None]) -> None:
    """Call a function around all that writes: each fsync, rename and line of the history.

    Args:
        strike: is given the descriptor of a file that is half on the disk, if there is one.
    """
    fsync, replace, scalars = os.fsync, os.replace, Tracker.scalars

    def struck_fsync(descriptor: int) -> None:
        folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        strike(None if folder else descriptor)
        fsync(descriptor)

    def struck_replace(source: Any, target: Any, **more: Any) -> None:
        strike(None)
        replace(source, target, **more)
        strike(None)

    def struck_scalars(self: Tracker, progress: Progress, values: dict[str, float]) -> None:
        scalars(self, progress, values)
        strike(self.metrics.fileno())

    os.fsync, os.replace = struck_fsync, struck_replace  # type: ignore[assignment]
    Tracker.scalars = struck_scalars  # type: ignore[method-assign]


def note_writes(path: Path) -> Callable[[], None]:
    """Return what makes a run add a byte to a file at each of its writes."""

    def strike(_: int | None) -> None:
        with path.open("ab") as file:
            file.write(b".")

    return lambda: at_writes(strike)


def killed_at_write(number: int) -> Callable[[], None]:
    """Return what kills a run at one of its writes."""
    writes = count(1)

    def strike(descriptor: int | None) -> None:
        if next(writes) == number:
            if descriptor is not None:
                tear(descriptor)
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: at_writes(strike)


def slow_disk() -> None:
    """Let all that writes wait, four times as long as the run would last without."""
    at_writes(lambda _: time.sleep(0.05))


def again(run: Path, command: list[str], chance: random.Random) -> list[str]:
    """Return what a user types to go on: `resume=` where there is what it needs, or the command."""
    begun = (run / "checkpoints" / "last.pt").exists()
    return ["resume=run"] if begun and chance.random() < 0.5 else command


def assert_no_fold(run: Path, whole: Path, case: str) -> None:
    """Check that TensorBoard shows no point twice, out of order, or that the whole run has not."""
    shown, expected = (
        EventAccumulator(str(each), size_guidance={"scalars": 0}).Reload() for each in (run, whole)
    )
    for tag in shown.Tags()["scalars"]:
        points, right = (
            [(e.step, e.value) for e in each.Scalars(tag)] for each in (shown, expected)
        )
        steps = [step for step, _ in points]
        assert steps == sorted({*steps}), (case, tag)
        assert "speed" in tag or {*points} <= {*right}, (case, tag)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_as_if_it_was_left_alone(
    start: Start, tmp_path: Path, cases: int, chance: random.Random,
    assert_same_end: SameEnd, tell: Callable[[str], None], kind: str,
) -> None:  # fmt: skip
    command = [*LENGTH, *KINDS[kind]]
    whole, noted = tmp_path / "whole", tmp_path / "noted"
    whole.mkdir()
    began = time.monotonic()
    assert start(command, whole, note_writes(noted)).wait() == (0, "")
    lasts, writes = time.monotonic() - began, noted.stat().st_size
    assert writes > 30
    killed = 0
    for case in range(2 * cases):
        folder = tmp_path / str(case)
        folder.mkdir()
        run, told = folder / "run", ""
        for _ in range(chance.choice((1, 1, 2))):
            typed = again(run, command, chance)
            if case % 2:
                number = chance.randrange(1, writes + 1)
                process = start(typed, folder, killed_at_write(number))
                told += f"case {case}: {typed[-1]} killed at write {number}; "
            else:
                moment = chance.uniform(0, lasts)
                process = start(typed, folder)
                process.kill_after(moment)
                told += f"case {case}: {typed[-1]} killed after {moment:.3f} s; "
            status, said = process.wait()
            assert (status, said) in ((-signal.SIGKILL, ""), (0, "")), told
            killed += status != 0
            time.sleep(math.ceil(time.time()) - time.time())  # TensorBoard's files go by seconds
        assert start(again(run, command, chance), folder).wait() == (0, ""), told
        assert_same_end(run, whole / "run", told)
        assert_no_fold(run, whole / "run", told)
    tell(f"{2 * cases} runs of {writes} writes, {killed} kills")


def test_a_run_that_is_killed_while_it_waits_for_a_slow_disk_loses_nothing(
    start: Start, tmp_path: Path, cases: int, chance: random.Random, assert_same_end: SameEnd,
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    command = [*LENGTH, *KINDS["realnvp"]]
    whole, slow = tmp_path / "whole", tmp_path / "slow"
    for folder in (whole, slow):
        folder.mkdir()
    assert start(command, whole).wait() == (0, "")
    began = time.monotonic()
    assert start(command, slow, slow_disk).wait() == (0, "")
    lasts, killed = time.monotonic() - began, 0
    assert_same_end(slow / "run", whole / "run", "slow")
    for case in range(cases):
        folder = tmp_path / str(case)
        folder.mkdir()
        process = start(command, folder, slow_disk)
        process.kill_after(chance.uniform(0, lasts))
        killed += process.wait()[0] != 0
        time.sleep(math.ceil(time.time()) - time.time())  # TensorBoard's files go by seconds
        assert start(again(folder / "run", command, chance), folder, slow_disk).wait() == (0, "")
        assert_same_end(folder / "run", whole / "run", str(case))
        assert_no_fold(folder / "run", whole / "run", str(case))
    tell(f"{cases} runs of {lasts:.1f} s, {killed} kills")
