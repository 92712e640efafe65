"""How the cost of a training step grows, one setting of a model changed at a time."""

import statistics
import time
from itertools import count
from typing import Any

from benchmarks.learners import Maker

TURNS, SECONDS = 3, 0.5  # of a measurement; the median of the turns counts
DISCRETE: dict[str, list[Any]] = {
    "trainer.batch_size": [128, 512, 2048, 8192],
    "model.hidden": [32, 64, 128],
    "model.couplings": [4, 8, 16],
    "data.dim": [2, 8, 64],
}
CONTINUOUS: dict[str, list[Any]] = {
    "trainer.batch_size": [128, 512, 2048, 8192],
    "model.width": [32, 64, 128],
    "model.depth": [2, 3, 6],
    "data.dim": [2, 8, 64],
}
MODELS: dict[str, dict[str, list[Any]]] = {
    "model=realnvp": DISCRETE,
    "model=spline": DISCRETE,
    "model=ffjord objective=flow_matching": CONTINUOUS,
    "model=ffjord solver=midpoint": CONTINUOUS | {"solver.step_size": [0.2, 0.1, 0.05]},
}


def growth(maker: Maker) -> dict[str, dict[str, dict[str, float]]]:
    """Return milliseconds per step by model, setting and value; all else is the model's own.

    Args:
        maker: makes what makes a run of these overrides.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for model, settings in MODELS.items():
        for setting, values in settings.items():
            data = "data=funnel" if setting == "data.dim" else "data=moons"
            for value in values:
                words = [*model.split(), data, "optimizer=adam", f"{setting}={value}"]
                taken = milliseconds(maker, words)
                found.setdefault(model, {}).setdefault(setting, {})[str(value)] = taken
                print(f"{' '.join(words)}: {taken:.2f} ms", flush=True)
    return found


def milliseconds(maker: Maker, words: list[str]) -> float:
    """Return the median milliseconds of a training step."""
    learner = maker(*words)()
    learner.step(0.5)  # what is imported at first is no step's
    times = []
    for _ in range(TURNS):
        began = time.process_time()
        for taken in count(1):  # noqa: B007 - it is read below
            learner.step(0.5)
            if time.process_time() > began + SECONDS:
                break
        times.append(1e3 * (time.process_time() - began) / taken)
    return statistics.median(times)
