"""Settings that are `auto` in a config, settled by the training rows, the columns, the device."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowtrain.config.schema import Config, validate
from flowtrain.config.section import Mark, marked

# A conditioner of width 64 has some 10,000 weights a coupling; few rows are learned by heart by it.
SMALL, LARGE = 1_000, 20_000
NUMBERS = 400_000  # of a tensor that stays in a core's cache, where it is computed fastest
LARGEST_BATCH = 4_096


@dataclass(frozen=True)
class _Case:
    """What rules look at: the config so far, rows of the training split, columns, the device."""

    config: Config
    rows: int
    columns: int
    device: str


def _couplings(case: _Case) -> int:
    return 4 if case.rows < SMALL else 8


def _width(case: _Case) -> int:
    return 32 if case.rows < SMALL else 64 if case.rows < LARGE else 128


def _steps(case: _Case) -> int:
    """Forty passes in batches of 256, within a minute's reach; patience ends most runs earlier."""
    return min(max(40 * case.rows // 256, 1_500), 6_000) // 100 * 100


def _interval(case: _Case) -> int:
    """Few rows are overfitted within a hundred steps; with many an evaluation costs several."""
    return 10 if case.rows < SMALL else max(25, case.rows // 2_000 // 25 * 25)


def _batch(case: _Case) -> int:
    """Fewer where a row is wide, as that of an exact trace in many columns; a GPU takes all."""
    if case.device != "cpu":
        return LARGEST_BATCH
    power = round(math.log2(NUMBERS / case.config.model.widest(case.columns)))
    return min(1 << max(power, 7), LARGEST_BATCH)


RULES: dict[str, Callable[[_Case], int]] = {
    "model.couplings": _couplings,
    "model.hidden": _width,
    "trainer.max_steps": _steps,
    "trainer.evaluate_every": _interval,
    "evaluation.batch_size": _batch,
}


def settle(
    config: Config, *, rows: int, columns: int, device: str = "cpu"
) -> tuple[Config, dict[str, Any]]:
    """Return a config in which nothing is `auto` that hangs on the data, and what was settled.

    Args:
        config: of the run.
        rows: of the training split.
        columns: of the data.
        device: of the run, "cpu" or another.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config
    >>> settle(config, rows=100, columns=2)[1]  # it says it all
    {}
    >>> raw = config.model_dump()
    >>> config = validate({**raw, "model": {**raw["model"], "hidden": "auto"}})
    >>> settle(config, rows=100, columns=2)[1]
    {'model.hidden': 32}
    """
    raw = config.model_dump()
    settled = {}
    for key in dict.fromkeys(marked(Config, Mark.SETTLED)):
        group, name = key.split(".")
        if raw[group].get(name) == "auto":
            settled[key] = raw[group][name] = RULES[key](_Case(config, rows, columns, device))
            config = validate(raw)
    return config, settled
