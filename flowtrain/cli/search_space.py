"""The space of a search, in Hydra's own syntax of overrides, as Optuna's distributions."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from flowtrain.config.section import require_extra
from flowtrain.errors import UserError


def search_space(overrides: Sequence[Override]) -> tuple[dict[str, str], dict[str, Any]]:
    """Split overrides into settings that every trial has, and the space that is searched.

    `interval(a, b)` is a number between a and b, a whole one where both are; `tag(log, ...)` makes
    it logarithmic. `range(a, b, step)` is one of these numbers, `choice(...)` or `a,b,c` one of
    these values, without an order. Of a key that is named twice the last one counts.

    Raises:
        UserError: there is nothing to search, or a range is empty, or Optuna is not installed.
    """
    require_extra("optuna", chosen="sweep=optuna", extra="optuna")
    fixed: dict[str, str] = {}
    space: dict[str, Any] = {}
    for override in overrides:
        key = override.get_key_element()
        fixed.pop(key, None)
        space.pop(key, None)
        if override.is_sweep_override():
            try:
                space[key] = _distribution(override)
            except ValueError as error:
                raise UserError(f"{override.input_line}: {error}") from None
        else:
            fixed[key] = override.get_value_element_as_str()
    if not space:
        raise UserError(
            "sweep=optuna: there is nothing to search; give a setting values to choose from, as in "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
        )
    return fixed, space


def _distribution(override: Override) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    value = override.value()
    if isinstance(value, IntervalSweep):
        ends = (value.start, value.end)
        whole = all(isinstance(end, int) for end in ends)
        return (IntDistribution if whole else FloatDistribution)(*ends, log="log" in value.tags)
    if isinstance(value, RangeSweep):
        numbers = list(value.range())
        if not numbers:
            raise ValueError("there is nothing to choose from")
        if isinstance(numbers[0], int):
            return IntDistribution(numbers[0], numbers[-1], step=abs(int(value.step)))
        low, high = float(numbers[0]), float(numbers[-1])
        return FloatDistribution(low, high, step=float(value.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))
