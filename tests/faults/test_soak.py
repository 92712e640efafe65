"""Long runs: memory and file handles stay, and files grow by what is logged alone."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

pytestmark = pytest.mark.soak

# Every part of a real run, at an interval that lets it happen often.
RUN = (
    "data=gaussian_mixture", "trainer=default", "trainer.device=cpu", "trainer.batch_size=32",
    "splits.train=1000", "splits.val=200", "splits.test=200", "evaluation.grid=32",
    "hydra.run.dir=run",
)  # fmt: skip
KINDS = {
    "realnvp": (
        "model=realnvp", "model.couplings=2", "model.hidden=8", "model.depth=1",
        "trainer.max_steps=200_000", "trainer.log_every=50", "trainer.evaluate_every=1000",
        "trainer.draw_every=4",
    ),
    "ffjord": (
        "model=ffjord", "model.width=8", "model.depth=1", "objective=maximum_likelihood",
        "solver=dopri5", "trainer.max_steps=2000", "trainer.log_every=10",
        "trainer.evaluate_every=50", "trainer.draw_every=1",
    ),
}  # fmt: skip
EVERY = 0.5  # seconds between looks
BOUND = 50e6  # bytes of TensorBoard's file and metrics.jsonl, most of them pictures


class Look(NamedTuple):
    """What a process holds at a step: bytes, handles, bytes."""

    step: int
    memory: int
    handles: int
    events: int
    metrics: int


def look(pid: int, run: Path) -> Look | None:
    """Return what a run holds now; None before its first line and after its end."""
    try:
        line = (run / "metrics.jsonl").read_bytes().rsplit(b"\n", 2)[-2]
        resident = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        events = sum(path.stat().st_size for path in run.rglob("events.out.*"))
        metrics = (run / "metrics.jsonl").stat().st_size
        return Look(json.loads(line)["step"], resident * 4096, handles, events, metrics)
    except (OSError, IndexError):
        return None


def slope(looks: np.ndarray, column: str) -> float:
    """Return by how much a column grows in 1,000 steps, by least squares."""
    rise = np.polynomial.Polynomial.fit(looks[:, 0], looks[:, Look._fields.index(column)], 1)
    return float(1000 * rise.deriv()(0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_and_handles_stay(tmp_path: Path, kind: str, tell: Callable[[str], None]) -> None:
    command = [str(Path(sys.executable).with_name("flowtrain")), *RUN, *KINDS[kind]]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said)
    found = []
    while process.poll() is None:
        time.sleep(EVERY)
        found.append(look(process.pid, tmp_path / "run"))
    assert process.returncode == 0, (tmp_path / "said").read_text(encoding="utf-8")
    looks = np.array([each for each in found if each is not None and each.memory], dtype=float)
    steps = looks[-1, 0]
    warm = looks[looks[:, 0] > steps / 4]  # matplotlib's garbage piles up to a level first
    assert len(warm) > 50
    first, second = warm[warm[:, 0] < steps * 5 / 8], warm[warm[:, 0] >= steps * 5 / 8]
    memory, handles, events, metrics = (slope(warm, column) for column in Look._fields[1:])
    tell(
        f"{steps:,.0f} steps; memory {np.median(warm[:, 1]) / 1e6:.0f} MB, {memory / 1e3:+.1f} kB, "
        f"handles {np.median(warm[:, 2]):.0f}, {handles:+.4f}, TensorBoard {events / 1e3:+.1f} kB, "
        f"metrics.jsonl {metrics / 1e3:+.1f} kB in 1,000 steps"
    )
    assert np.median(second[:, 1]) < 1.02 * np.median(first[:, 1])
    assert np.median(first[:, 2]) == np.median(second[:, 2])
    assert second[:, 2].max() <= first[:, 2].max() + 2  # a checkpoint may just be open
    assert looks[-1, 3] + looks[-1, 4] < BOUND
