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
FIXED = ("resume", "trainer.max_steps", "trainer.max_seconds", "trainer.threads")


def settings(section: Section, above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key of every setting and the JSON schema of its values."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{above}{name}"
        if isinstance(value, Section):
            yield from settings(value, f"{key}.")
        elif key not in FIXED:
            yield key, TypeAdapter(field.rebuild_annotation()).json_schema()


def values(schema: dict[str, Any]) -> Any:
    """Return a strategy of what a setting may be, and of what is just beyond or far beyond it."""
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from([*schema.get("enum", [schema.get("const")]), "nonsense"])
    match schema.get("type"):
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            least, most = schema.get("minimum", 0), schema.get("maximum", 10**30)
            beyond = [most + 1, 10**12, 10**30, -1, least - 1, 0.5]
            inside = [least, least + 1, least + 2, least + 3, *[most] * (most <= 1000)]
            return st.sampled_from(inside) | st.sampled_from(inside) | st.sampled_from(beyond)
        case "number":
            edges = [schema[edge] for edge in NUMBERS if edge in schema]
            inside = [*edges, 0.5, 1e-3, 1e-30, 1.0, 10.0]
            wild = [1e-300, 1e30, 1e300, -1.0, 0.0, "nan", "inf", "auto"]
            return st.sampled_from(inside) | st.sampled_from(inside) | st.sampled_from(wild)
        case "array":
            return st.lists(values(schema.get("items", {})), max_size=3)
    return st.sampled_from(("", "cpu", "nonsense", "a\nb", "${seed}", "os:system", "rows.csv"))


NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def typed(key: str, value: Any) -> str:
    """Return an override as a user would type it."""
    if isinstance(value, str) and value not in ("nan", "inf"):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
        return f"{key}='{quoted}'"
    return f"{key}={json.dumps(value)}".replace('"', "'")


def test_two_hundred_runs_of_two_steps_run_or_say_why_not(
    compose: Compose, hold: Hold, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    configs: list[Config] = [validate(compose(*LENGTH, *base)) for base in BASES]
    known = [dict(settings(config)) for config in configs]
    table = "\n".join(f"{i},{i * i % 7},{1 / (i + 1)}" for i in range(100))
    ended = []

    def each(data: Any) -> None:
        number = data.draw(st.integers(0, len(BASES) - 1))
        keys = data.draw(st.lists(st.sampled_from(sorted(known[number])), max_size=3, unique=True))
        drawn = [typed(key, data.draw(values(known[number][key]))) for key in keys]
        home = tmp_path / str(len(ended))
        home.mkdir()
        (home / "rows.csv").write_text(table, encoding="utf-8")
        ended.append(hold(home, *LENGTH, *BASES[number], *drawn, "hydra.run.dir=run"))
        shutil.rmtree(home)

    chosen = hypothesis.settings(
        max_examples=200, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    chosen(hypothesis.given(st.data())(each))()
    tell(f"{len(ended)} runs, {ended.count('')} to their end, the others refused in words")
    assert 20 < ended.count("") < len(ended) - 20
