"""What a config would take is told before it is taken."""

from collections.abc import Callable
from typing import Any

import pytest

from flowtrain.build import blank_whitening, build_flow
from flowtrain.config import memory
from flowtrain.config.memory import least_memory, refuse_beyond_memory
from flowtrain.config.model import Model
from flowtrain.config.schema import Config, refuse_idle, validate
from flowtrain.config.section import names, options
from flowtrain.errors import ConfigError

Tiny = Callable[..., Config]

GIVEN = ("data=rings", f"data.radii={[1.0] * 1000}", "data.condition=component")
MATCHING = ("objective=flow_matching", "solver=none")
PAIRED = ("objective.targets=sample", "objective.coupling=optimal_transport")
LARGE = "trainer.batch_size=100000"


@pytest.mark.parametrize("name", [name for each in options(Model) for name in names(each)])
@pytest.mark.parametrize("dim", [2, 7])
def test_an_estimate_of_weights_is_no_more_than_they_are(tiny: Tiny, name: str, dim: int) -> None:
    config = tiny(model=name) if name != "affine" else tiny(model="affine")
    flow = build_flow(config, blank_whitening(config, dim), seed=0)
    real = sum(weight.numel() for weight in flow.parameters())
    assert 0 <= config.model.weights(dim) <= real
    if config.model.weights(dim):
        assert real <= 6 * config.model.weights(dim)


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("model", ["model.hidden=65000", "model.couplings=1000", "model.depth=9"]),
        ("splits", ["splits.train=1000000000", "splits.val=1000000000"]),
        ("splits", [*GIVEN, "splits.train=10000000"]),
        ("trainer.batch_size", ["trainer.batch_size=1000000000", "model.hidden=1000"]),
        ("trainer.replicas", ["trainer.replicas=1000", LARGE, "model.hidden=64"]),
        ("trainer.replicas", ["trainer.replicas=1000", "splits.train=2000000"]),
    ],
)
def test_a_run_that_cannot_be_held_is_refused_with_what_it_would_take(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, key: str, overrides: list[str]
) -> None:
    refused(tiny(*overrides), key, monkeypatch)
    refuse_beyond_memory(tiny(), 2)


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("trainer.batch_size", ["solver=rk4", "solver.step_size=1e-4", LARGE]),
        ("trainer.batch_size", ["solver=implicit_adams", "solver.step_size=1e-4", LARGE]),
        ("trainer.batch_size", [*MATCHING, *PAIRED, LARGE]),
        ("trainer.batch_size", [*MATCHING, "objective.reference=100000", LARGE]),
        (
            "objective.pairs",
            [
                "objective=reflow",
                "solver=none",
                "objective.teacher=run",
                "objective.pairs=10000000000",
            ],
        ),
    ],
)
def test_so_is_what_a_continuous_flow_would_hold_besides(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, key: str, overrides: list[str]
) -> None:
    refused(tiny(*overrides, model="ffjord"), key, monkeypatch)


def test_what_keeps_memory_small_is_counted(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: 16 * 10**9)
    adjoint = ["solver=rk4", "solver.step_size=1e-4", "solver.adjoint=true"]
    for overrides in (adjoint, [*MATCHING]):
        refuse_beyond_memory(tiny(*overrides, LARGE, model="ffjord"), 2)


def refused(config: Config, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: 16 * 10**9)
    with pytest.raises(ConfigError, match=rf"^{key}: .* of memory at least, .* has 16 GB: ask for"):
        refuse_beyond_memory(config, 2)
    assert least_memory(config, 2)[key] > 16 * 10**9


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.batch_size", 10**12), ("trainer.threads", 2**31), ("trainer.max_steps", 10**13),
        ("evaluation.batch_size", 2**63), ("splits.train", 2**31), ("model.hidden", 10**6),
        ("model.couplings", 10**6), ("model.depth", 10**6), ("evaluation.grid", 2**20),
    ],
)  # fmt: skip
def test_every_count_has_a_bound(tiny: Tiny, path: str, value: int) -> None:
    raw: dict[str, Any] = tiny().model_dump()
    group, key = path.split(".")
    raw[group][key] = value
    with pytest.raises(ConfigError, match=rf"^{path}: {value} is refused: it should be less than"):
        validate(raw)


def test_what_would_have_no_effect_in_a_new_run_is_refused(
    tiny: Tiny, compose: Callable[..., dict[str, Any]]
) -> None:
    adjoint = tiny("evaluation.solver.adjoint=true", model="ffjord")
    with pytest.raises(ConfigError, match=r"^evaluation\.solver\.adjoint: .* leave it false$"):
        refuse_idle(adjoint, dim=2)
    matching = ("objective=flow_matching", "solver=none", "model.divergence=hutchinson")
    estimated = tiny(*matching, model="ffjord")
    with pytest.raises(ConfigError, match=r"^model\.divergence: .* leave it auto$"):
        refuse_idle(estimated, dim=2)
    refuse_idle(estimated, dim=65)
    refuse_idle(tiny("model.divergence=hutchinson", model="ffjord"), dim=2)
    table = validate(compose("data=sklearn"))
    with pytest.raises(ConfigError, match=r"^evaluation\.grid: digits has no known density"):
        refuse_idle(table, dim=64, typed=["evaluation.grid"])
    refuse_idle(table, dim=64)
    drawn = tiny("data=rings", "data.condition=noise", "data.interval=[0.1,0.2]")
    with pytest.raises(ConfigError, match=r"^data\.noise: it is drawn from data\.interval"):
        refuse_idle(drawn, dim=2, typed=["data.condition", "data.noise"])
    refuse_idle(drawn, dim=2, typed=["data.condition", "data.radii"])
