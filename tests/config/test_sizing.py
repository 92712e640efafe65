"""Settings that are `auto`: settled by rows and columns, within what the schema allows."""

from collections.abc import Callable
from typing import Any

import pytest

from flowtrain.config.schema import Config, validate
from flowtrain.config.section import Mark, dotted, marked
from flowtrain.config.sizing import RULES, settle
from flowtrain.errors import ConfigError

Compose = Callable[..., dict[str, Any]]


def test_every_setting_that_may_be_auto_has_a_rule() -> None:
    assert {*marked(Config, Mark.SETTLED)} == {*RULES}


@pytest.mark.parametrize("model", ["realnvp", "glow", "spline", "affine", "ffjord"])
@pytest.mark.parametrize("rows", [2, 120, 3_000, 10**6])
def test_a_table_s_config_is_settled_whole(compose: Compose, model: str, rows: int) -> None:
    config = validate(compose("data=sklearn", f"model={model}"))
    assert config.trainer.model_dump()["max_steps"] == "auto"
    settled, chosen = settle(config, rows=rows, columns=4)
    flat = dotted(settled.model_dump())
    assert {key: flat[key] for key in chosen} == chosen
    assert {"trainer.max_steps", "trainer.evaluate_every"} <= {*chosen}
    assert settle(settled, rows=7, columns=1) == (settled, {})


def test_more_rows_never_get_less(compose: Compose) -> None:
    config = validate(compose("data=sklearn"))
    chosen = [settle(config, rows=rows, columns=5)[1] for rows in (2, 100, 2_000, 50_000, 10**7)]
    assert len(chosen[0]) > 1
    for key in chosen[0]:
        values = [each[key] for each in chosen]
        assert values == sorted(values)


def test_what_is_said_stays(compose: Compose) -> None:
    config = validate(compose("data=sklearn", "trainer.max_steps=7", "model.hidden=5"))
    settled, chosen = settle(config, rows=1_000, columns=4)
    assert (settled.trainer.max_steps, settled.model.model_dump()["hidden"]) == (7, 5)
    assert {*chosen} == {"model.couplings", "trainer.evaluate_every", "evaluation.batch_size"}


@pytest.mark.parametrize("value", [0, -1, 1.5, "many"])
def test_what_is_neither_a_count_nor_auto_is_refused(compose: Compose, value: object) -> None:
    raw = compose("data=moons")
    with pytest.raises(ConfigError, match=r"^trainer.max_steps: .* is refused: it should be"):
        validate({**raw, "trainer": {**raw["trainer"], "max_steps": value}})


@pytest.mark.parametrize(
    ("model", "columns", "rows"),
    [
        ("realnvp", 2, 4096), ("affine", 2, 4096), ("spline", 2, 4096), ("spline", 64, 256),
        ("maf_spline", 64, 128), ("ffjord", 2, 4096), ("ffjord", 8, 1024), ("ffjord", 64, 128),
        ("ffjord", 100, 4096),  # the trace is estimated
    ],
)  # fmt: skip
def test_wide_rows_are_evaluated_in_smaller_batches(
    compose: Compose, model: str, columns: int, rows: int
) -> None:
    config = validate(compose("data=moons", f"model={model}"))
    settled, _ = settle(config, rows=10**6, columns=columns)
    assert settled.evaluation.batch_size == rows
    assert settle(settled, rows=10, columns=1000)[0] == settled
    on_gpu, _ = settle(config, rows=10**6, columns=columns, device="cuda")
    assert on_gpu.evaluation.batch_size == 4096
