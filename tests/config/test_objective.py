"""The group `objective`: settings that would have no effect are refused."""

from collections.abc import Callable
from typing import Any

import pytest

from flowtrain.config.schema import validate
from flowtrain.errors import ConfigError

Compose = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("name", ["flow_matching", "flow_matching_then_likelihood"])
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"targets": "sample", "reference": 64},
            "reference has no effect with targets=sample; leave it null",
        ),
        (
            {"targets": "posterior_mean", "coupling": "optimal_transport"},
            "targets=posterior_mean needs coupling=independent; try targets=sample",
        ),
    ],
)
def test_targets_that_contradict_the_rest_are_refused(
    compose: Compose, name: str, changes: dict[str, Any], problem: str
) -> None:
    raw = compose("model=ffjord", f"objective={name}", "objective.targets=sample")
    raw["objective"] |= changes
    with pytest.raises(ConfigError) as caught:
        validate(raw)
    assert str(caught.value) == f"objective: {problem}"
