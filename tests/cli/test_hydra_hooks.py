"""What Hydra asks of us, and what its configs come to."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from flowtrain.config import CONF
from hydra_plugins.flowtrain_sweepers import GridSweeper

Compose = Callable[..., dict[str, Any]]
Flowtrain = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("data", sorted(path.stem for path in (CONF / "data").glob("*.yaml")))
def test_the_best_recipe_has_finer_splines_where_a_density_needs_them(
    compose: Compose, data: str
) -> None:
    plain = compose("model=spline", f"data={data}")
    best = compose("experiment=best", f"data={data}")
    finer: dict[str, dict[str, dict[str, float]]] = {
        "rings": {"model": {"bins": 32}},
        "checkerboard": {"model": {"bins": 32, "bound": 3.0}, "trainer": {"max_steps": 8500}},
    }
    more = {group: {**plain[group], **changes} for group, changes in finer.get(data, {}).items()}
    assert best == {**plain, **more}
    bins = 8 if data in ("table", "sklearn") else 16  # of rows, finer splines overfit
    assert (plain["model"]["bins"], plain["model"]["bound"]) == (bins, 4.0)


def test_a_resumed_run_keeps_its_record(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    flowtrain(*tiny_overrides, "hydra.run.dir=run")
    record = tmp_path / "run" / ".hydra" / "config.yaml"
    before = record.read_bytes()
    assert flowtrain("resume=run", "trainer.max_steps=22").returncode == 0
    assert record.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_sweep_does_not_keep_the_configs_of_its_jobs(
    flowtrain: Flowtrain, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[JobReturn] = []
    monkeypatch.setattr(sys.modules[GridSweeper.__module__], "raise_defect", returned.append)
    short = ("trainer.max_steps=1", "logger=none", "hydra.sweep.dir=sweep")
    assert flowtrain("-m", *tiny_overrides, *short).returncode == 0
    assert [job.status for job in returned] == [JobStatus.COMPLETED]
    assert returned[0].cfg is returned[0].hydra_cfg is None
