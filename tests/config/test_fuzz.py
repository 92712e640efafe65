"""Whatever a config holds, it is valid or refused in words: never another exception."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowtrain.config.memory import refuse_beyond_memory
from flowtrain.config.schema import refuse_idle, validate
from flowtrain.errors import ConfigError
from flowtrain.files import json_text
from flowtrain.runs.migrate import saved_config
from flowtrain.text import visible

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

Compose = Callable[..., dict[str, Any]]

BASES = (
    (),
    ("model=ffjord", "data=checkerboard"),
    ("model=ffjord", "objective=flow_matching_then_likelihood", "solver=rk4", "trainer.ema=0.9"),
    ("model=spline", "data=sklearn", "data.name=iris", "scheduler=constant"),
    ("model=glow", "data=table", "data.path=rows.csv", "optimizer=adamw", "logger=csv"),
    ("model=maf", "data=custom", "data.target=mine:Density", "dtype=float64"),
    ("model=planar", "data=gaussian_mixture", "objective=reverse_kl", "logger=wandb"),
)
EDGES: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 2**16, 2**16 + 1, 2**31, 2**63, 10**12, 10**400, 0.0, -0.0, 1.0, 0.5, 1e-323,
    1e308, float("nan"), float("inf"), -float("inf"), True, False, None, "", "auto", "none", "1",
    "\ud800", "a\nb", "\x1b[2J", "${seed}", "os:system", "x" * 5000, [], {}, [[]], [None],
    {"name": "none"}, {"name": ["none"]}, [1.0, 2.0], [1e300, 1e300],
)  # fmt: skip


@pytest.fixture(scope="module")
def bases(compose: Compose) -> list[dict[str, Any]]:
    return [compose(*overrides) for overrides in BASES]


def paths(settings: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every setting and of every group."""
    for key, value in settings.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def plain() -> Any:
    """Return a strategy of what YAML can hold, edges first."""
    leaves = st.one_of(
        st.sampled_from(EDGES), st.integers(), st.floats(), st.text(max_size=20), st.booleans()
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=8,
    )


def put(settings: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *groups, last = path
    for group in groups:
        if not isinstance(settings.get(group), dict):
            return  # an earlier change took the group away
        settings = settings[group]
    settings[last] = value


def changed(data: Any, bases: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw a config: a valid one in which some settings are wild, borrowed, missing or unknown."""
    raw: dict[str, Any] = copy.deepcopy(data.draw(st.sampled_from(bases)))
    known = list(paths(raw))
    for _ in range(data.draw(st.integers(0, 3))):
        path = data.draw(st.sampled_from(known))
        match data.draw(st.sampled_from(("wild", "wild", "borrowed", "missing", "unknown"))):
            case "wild":
                put(raw, path, data.draw(plain()))
            case "borrowed":  # a whole group, too, of another model or data set
                other = copy.deepcopy(data.draw(st.sampled_from(bases)))
                for key in path:
                    other = other.get(key) if isinstance(other, dict) else None
                put(raw, path, other)
            case "missing":
                put(raw, path, None)
                group = raw
                for key in path[:-1]:
                    group = group.get(key, {}) if isinstance(group, dict) else {}
                if isinstance(group, dict):
                    group.pop(path[-1], None)
            case "unknown":
                put(raw, (*path[:-1], data.draw(st.text(max_size=8))), data.draw(plain()))
    return raw


def hold(raw: dict[str, Any]) -> bool:
    """Check what holds for any config; return whether it is valid."""
    try:
        config = validate(raw)
    except ConfigError as error:
        told = str(error)
        assert told.strip()
        visible(told).encode()  # whatever it quotes can be shown
        return False
    assert validate(config.model_dump()) == config
    json.loads(json_text(saved_config(config)))
    try:
        refuse_idle(config, dim=2)
        refuse_beyond_memory(config, 2)
    except ConfigError as error:
        visible(str(error)).encode()
    return True


def fuzz(bases: list[dict[str, Any]], examples: int) -> list[bool]:
    valid: list[bool] = []

    def each(data: Any) -> None:
        valid.append(hold(changed(data, bases)))

    chosen = hypothesis.settings(
        max_examples=examples, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    chosen(hypothesis.given(st.data())(each))()
    return valid


def test_any_config_is_valid_or_refused_in_words(bases: list[dict[str, Any]]) -> None:
    valid = fuzz(bases, 150)
    assert 0 < sum(valid) < len(valid)


@pytest.mark.faults
def test_two_thousand_configs_are_valid_or_refused_in_words(
    bases: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    valid = fuzz(bases, 2000)
    with capsys.disabled():
        print(f"\n{len(valid)} configs: {sum(valid)} valid, the others refused in words")
