"""`flowrun score`: the log-density of a user's rows, and what it says of anomalies."""

import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import flowtrain
from flowtrain.data.read import read_table
from flowtrain.runs.load import open_run

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def points(folders: dict[str, Path], tmp_path: Path) -> torch.Tensor:
    """Write points.csv, 60 points of the density and 20 far away, labelled; return them."""
    density = open_run(folders["realnvp"]).density
    assert density is not None
    normal = density.sample(60, torch.Generator().manual_seed(0))
    far = 30 + torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.cat([normal, far])
    lines = [f"{row[0]!r},{int(i >= 60)},{row[1]!r}" for i, row in enumerate(x.tolist())]
    (tmp_path / "points.csv").write_text("\n".join(["a,odd,b", *lines]))
    return x


def test_each_row_has_its_log_density(
    flowrun: Flowrun, folders: dict[str, Path], points: torch.Tensor, tmp_path: Path
) -> None:
    told = flowrun("score", folders["realnvp"], "points.csv", "--columns", "a,b")
    header, *rows = told.stdout.splitlines()
    with torch.no_grad():
        expected = flowtrain.load(folders["realnvp"]).log_prob(points.float())
    assert header == "log_prob"
    assert torch.equal(torch.tensor([float(row) for row in rows]), expected)
    assert told.stderr == ""
    flowrun("score", folders["realnvp"], "points.csv", "--columns", "0,2", "-o", "scores.npy")
    assert np.array_equal(np.load(tmp_path / "scores.npy")[:, 0], expected.numpy())


def test_rows_less_likely_than_the_validation_points_are_anomalies(
    flowrun: Flowrun, folders: dict[str, Path], points: torch.Tensor, tmp_path: Path
) -> None:
    told = flowrun(
        "score", folders["realnvp"], "points.csv", "--label", "odd",
        "--threshold-quantile", "0.1", "-o", "scores.csv",
    )  # fmt: skip
    scores = read_table(tmp_path / "scores.csv", columns=None, header="auto")
    assert scores.columns == ("log_prob", "anomaly")
    log_q, anomaly = scores.values.T
    opened = open_run(folders["realnvp"])
    with torch.no_grad():
        own = opened.flow.log_prob(opened.splits.val.x)
    limit = np.quantile(own.numpy(), 0.1, method="lower")
    assert torch.equal(anomaly.bool(), log_q < float(limit))
    assert anomaly[60:].all()
    assert f"{int(anomaly.sum())} of 80 rows" in told.stderr
    assert "AUROC of -log_prob: 1.0000, 20 anomalies of 80 rows" in told.stderr


def test_the_auroc_counts_a_point_of_no_density_as_the_oddest(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("a,b,y\n1e30,1e30,1\n0,1,0\n9,9,0\n8,8,1\n")
    told = flowrun("score", folders["realnvp"], "p.csv", "--label", "y")
    assert math.isinf(float(told.stdout.splitlines()[1]))
    assert told.stderr.startswith("flowrun: AUROC of -log_prob: 0.7500")
