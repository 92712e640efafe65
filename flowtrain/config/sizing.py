"""Settings that are `auto` in a config, settled by the number of training rows and of columns."""

import math
from collections.abc import Callable
from typing import Any

from flowtrain.config.schema import Config, validate
from flowtrain.config.section import Mark, marked

# A conditioner of width 64 has some 10,000 weights a coupling; few rows are learned by heart by it.
SMALL, LARGE = 1_000, 20_000
NUMBERS = 400_000  # of a tensor that stays in a core's cache, where it is computed fastest

Rule = Callable[[Config, int, int], int]  # of the config, its training rows and its columns


def _couplings(config: Config, rows: int, columns: int) -> int:
    return 4 if rows < SMALL else 8


def _width(config: Config, rows: int, columns: int) -> int:
    return 32 if rows < SMALL else 64 if rows < LARGE else 128


def _steps(config: Config, rows: int, columns: int) -> int:
    """Forty passes in batches of 256, within a minute's reach; patience ends most runs earlier."""
    return min(max(40 * rows // 256, 1_500), 6_000) // 100 * 100


def _interval(config: Config, rows: int, columns: int) -> int:
    """Few rows are overfitted within a hundred steps; with many an evaluation costs several."""
    return 10 if rows < SMALL else max(25, rows // 2_000 // 25 * 25)


def _batch(config: Config, rows: int, columns: int) -> int:
    """In the plane 4,096; fewer where a row is wide, as that of an exact trace in many columns."""
    power = round(math.log2(NUMBERS / config.model.widest(columns)))
    return 1 << min(max(power, 7), 12)


RULES: dict[str, Rule] = {
    "model.couplings": _couplings,
    "model.hidden": _width,
    "trainer.max_steps": _steps,
    "trainer.evaluate_every": _interval,
    "evaluation.batch_size": _batch,
}


def settle(config: Config, *, rows: int, columns: int) -> tuple[Config, dict[str, Any]]:
    """Return a config in which nothing is `auto` that hangs on the data, and what was settled.

    Args:
        config: of the run.
        rows: of the training split.
        columns: of the data.

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
            settled[key] = raw[group][name] = RULES[key](config, rows, columns)
            config = validate(raw)
    return config, settled
