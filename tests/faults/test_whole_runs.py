"""Whole runs of two steps with settings drawn over the schema: each runs, or says why not."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from flowtrain.config.schema import Config, validate
from flowtrain.config.section import Section
from flowtrain.text import for_hydra

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

pytestmark = pytest.mark.faults

Compose = Callable[..., dict[str, Any]]
Hold = Callable[..., str]

SMALL = (
    "splits.train=200", "splits.val=50", "splits.test=50", "evaluation.grid=16",
    "trainer.batch_size=16",
)  # fmt: skip
TABLE = ("data=table", "data.path=rows.csv", "trainer.batch_size=16")
FFJORD = ("model=ffjord", "model.width=8", "model.depth=1")
BASES = (
    (*SMALL, "data=gaussian_mixture", "model=realnvp", "model.couplings=2", "model.hidden=8"),
    (*SMALL, "data=two_spirals", "model=glow", "model.couplings=2", "model.hidden=8"),
    (*SMALL, "data=rings", "model=spline", "model.couplings=2", "model.hidden=8"),
    (*SMALL, "data=u1", "model=planar", "model.layers=2", "objective=reverse_kl"),
    (*SMALL, "data=moons", *FFJORD, "solver=dopri5", "objective=maximum_likelihood"),
    (*SMALL, "data=checkerboard", *FFJORD, "solver=rk4", "regularization=rnode"),
    (*SMALL, "data=pinwheel", *FFJORD, "objective=flow_matching"),
    (*SMALL, "data=circles", *FFJORD, "objective=flow_matching_then_likelihood"),
    (*TABLE, "model=maf", "model.layers=2", "model.hidden=8"),
    (*TABLE, "model=spline", "model.couplings=2", "model.hidden=8", "dtype=float64"),
    (*TABLE, *FFJORD, "objective=maximum_likelihood"),
)
LENGTH = (
    "trainer.max_steps=2", "trainer.evaluate_every=1", "trainer.log_every=1",
    "trainer.figures=false", "trainer.device=cpu",
)  # fmt: skip
FIXED = (
    "resume", "init_from", "trust_code", "trainer.max_steps", "trainer.max_seconds",
    "trainer.threads", "trainer.figures", "trainer.animation",
)  # fmt: skip


def settings(section: Section, above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key of every setting and the JSON schema of its values."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{above}{name}"
        if isinstance(value, Section):
            yield from settings(value, f"{key}.")
        elif key not in FIXED and name != "name":
            yield key, TypeAdapter(field.rebuild_annotation()).json_schema()


def values(schema: dict[str, Any], *, wild: bool) -> Any:
    """Return a strategy of what a setting may be; if wild, of what is at its edges and beyond."""
    if "anyOf" in schema:
        return st.one_of(*(values(each, wild=wild) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        known = schema.get("enum", [schema.get("const")])
        return st.sampled_from([*known, *["nonsense"] * wild])
    match schema.get("type"):
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            least, most = schema.get("minimum", 0), schema.get("maximum", 10**30)
            if not wild:
                return st.integers(least, min(least + 20, most))
            small = [most] * (most <= 1000)  # what is larger, and allowed, may take its time
            return st.sampled_from([least, *small, least - 1, most + 1, 10**12, 10**30, -1, 0.5])
        case "number":
            edges = {"minimum": 0.0, "exclusiveMinimum": 0.0, "maximum": 1.0} | schema
            if not wild:
                below = "exclusiveMaximum" in edges or "maximum" in schema
                return st.floats(max(1e-3, edges["minimum"]), 0.9 if below else 3.0)
            given = [schema[edge] for edge in edges if edge in schema and edge != "type"]
            return st.sampled_from([*given, 1e-300, 1e-30, 1e30, 1e300, -1.0, 0.0, *NO_NUMBERS])
        case "array":
            sizes = {} if wild else {"min_size": schema.get("minItems", 1)}
            return st.lists(values(schema.get("items", {}), wild=wild), max_size=2, **sizes)
    return st.sampled_from(("", "nonsense", "a\nb", "${seed}", "os:system") if wild else ("cpu",))


NO_NUMBERS = ("nan", "inf", "auto")


def typed(key: str, value: Any) -> str:
    """Return an override as a user would type it."""
    if isinstance(value, str) and value not in NO_NUMBERS:
        return f"{key}={for_hydra(value)}"
    return f"{key}={json.dumps(value)}".replace('"', "'")


def test_two_hundred_runs_of_two_steps_run_or_say_why_not(
    compose: Compose, hold: Hold, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    configs: list[Config] = [validate(compose(*LENGTH, *base)) for base in BASES]
    known = [dict(settings(config)) for config in configs]
    table = "\n".join(f"{i},{i * i % 7},{1 / (i + 1)}" for i in range(100))
    ended: list[str] = []

    def each(data: Any) -> None:
        number = data.draw(st.integers(0, len(BASES) - 1))
        keys = data.draw(st.lists(st.sampled_from(sorted(known[number])), max_size=3, unique=True))
        wild = data.draw(st.booleans())
        drawn = [typed(key, data.draw(values(known[number][key], wild=wild))) for key in keys]
        home = tmp_path / str(len(ended))
        home.mkdir()
        (home / "rows.csv").write_text(table, encoding="utf-8")
        try:
            ended.append(hold(home, *LENGTH, *BASES[number], *drawn, "hydra.run.dir=run"))
        finally:
            shutil.rmtree(home)

    chosen = hypothesis.settings(
        max_examples=200, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    chosen(hypothesis.given(st.data())(each))()
    tell(f"{len(ended)} runs, {ended.count('')} to their end, the others refused in words")
    assert 20 < ended.count("") < len(ended) - 20
