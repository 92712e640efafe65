"""`flowrun score`: the log-density of a user's rows, and what it says of anomalies."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import flowtrain
from flowtrain.cli.compose import compose
from flowtrain.config.schema import validate
from flowtrain.data.dequantize import spread
from flowtrain.data.read import read_table
from flowtrain.runs.load import open_run
from flowtrain.training.trainer import train

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
    assert header == "a,odd,b,log_prob"
    assert torch.equal(torch.tensor([float(row.split(",")[3]) for row in rows]), expected)
    given = (tmp_path / "points.csv").read_text().splitlines()[1:]
    assert [row.rpartition(",")[0] for row in rows] == given  # to the letter
    scored, wrote = told.stderr.splitlines()
    assert scored.startswith("flowrun: scored 80 rows of points.csv by a,b: realnvp on ")
    best = json.loads((folders["realnvp"] / "result.json").read_text())["best_step"]
    assert scored.endswith(f", best weights, of step {best}")
    assert wrote == "flowrun: wrote standard output: the file's columns, log_prob"
    flowrun("score", folders["realnvp"], "points.csv", "--columns", "0,2", "-o", "scores.npy")
    scores = np.load(tmp_path / "scores.npy")
    assert np.array_equal(scores[:, :2], points.numpy())
    assert np.array_equal(scores[:, 2].astype(np.float32), expected.numpy())


def test_rows_that_lack_a_value_are_left_out_where_that_is_asked_for(
    flowrun: Flowrun,
    folders: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "holes.csv").write_text("who,a,b\nAda,0.50,1\nBob,,2\nEve,0.25,NA\nUna,1,-1\n")
    (tmp_path / "whole.csv").write_text("who,a,b\nAda,0.50,1\nUna,1,-1\n")
    asked = ("--columns", "a,b")
    refused = flowrun("score", folders["realnvp"], "holes.csv", *asked)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith("so is one in 1 more row; --missing drop leaves such rows out\n")
    drop = (*asked, "--missing", "drop")
    told = flowrun("score", folders["realnvp"], "holes.csv", *drop)
    assert told.stdout == flowrun("score", folders["realnvp"], "whole.csv", *asked).stdout
    assert caplog.messages == ["holes.csv: 2 of 4 rows lack a value and are left out; 1 lack 'a'"]
    points = ("evaluate", folders["realnvp"], *drop, "--json", "-", "--points")
    found = [json.loads(flowrun(*points, f"{name}.csv").stdout) for name in ("holes", "whole")]
    assert found[0]["rows"] == 2
    assert found[0]["metrics"] == found[1]["metrics"]


def test_the_file_that_is_read_is_not_written_over(
    flowrun: Flowrun, folders: dict[str, Path], points: torch.Tensor, tmp_path: Path
) -> None:
    before = (tmp_path / "points.csv").read_bytes()
    told = flowrun("score", folders["realnvp"], "points.csv", "-o", "./points.csv")
    assert told.stderr == "flowrun: points.csv is the file that is read; write another\n"
    assert (told.returncode, (tmp_path / "points.csv").read_bytes()) == (1, before)


def test_a_column_of_any_content_is_kept_in_every_format_with_names(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text('who,a,b\n"Ada, B.",1.50,2\n,0,1e0\n')
    asked = ("score", folders["realnvp"])
    flowrun(*asked, "p.csv", "--columns", "a,b", "-o", "s.tsv")
    header, first, second = (tmp_path / "s.tsv").read_text().splitlines()
    assert header == "who\ta\tb\tlog_prob"
    assert first.startswith("Ada, B.\t1.50\t2\t")
    assert second.startswith("\t0\t1e0\t")
    flowrun(*asked, "p.csv", "--columns", "a,b", "-o", "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column_names == ["who", "a", "b", "log_prob"]
    assert table.column("who").to_pylist() == ["Ada, B.", ""]


def test_a_column_is_never_overwritten(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("a,b,log_prob\n1,2,3\n")
    told = flowrun("score", folders["realnvp"], "p.csv", "--columns", "a,b")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == "flowrun: p.csv: it has a column 'log_prob' already; rename it\n"


def test_rows_less_likely_than_the_validation_points_are_anomalies(
    flowrun: Flowrun, folders: dict[str, Path], points: torch.Tensor, tmp_path: Path
) -> None:
    told = flowrun(
        "score", folders["realnvp"], "points.csv", "--label", "odd",
        "--threshold-quantile", "0.1", "-o", "scores.csv",
    )  # fmt: skip
    scores = read_table(tmp_path / "scores.csv", columns=None, header="auto")
    assert scores.columns == ("a", "odd", "b", "log_prob", "anomaly")
    log_q, anomaly = scores.values[:, 3:].T
    opened = open_run(folders["realnvp"])
    with torch.no_grad():
        own = opened.flow.log_prob(opened.splits.val.x)
    limit = np.quantile(own.numpy(), 0.1, method="lower")
    assert torch.equal(anomaly.bool(), log_q < float(limit))
    assert anomaly[60:].all()
    assert f"{int(anomaly.sum())} of 80 rows" in told.stderr
    assert "AUROC of -log_prob: 1.0000, 20 anomalies of 80 rows" in told.stderr


def test_rows_on_a_grid_are_judged_as_the_run_s_own_are(flowrun: Flowrun, tmp_path: Path) -> None:
    """By NLL both are spread over their cells; by a quantile both are taken as written."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.poisson(4, 500), rng.integers(0, 2, 500), rng.normal(size=500)], 1)
    text = [",".join(map(repr, row)) for row in rows.tolist()]
    (tmp_path / "rows.csv").write_text("\n".join(["count,flag,length", *text]))
    composed = compose([
        "data=table", f"data.path={tmp_path}/rows.csv", "model=affine", "trainer.max_steps=5",
        "trainer.evaluate_every=5", "trainer.figures=false", "trainer.device=cpu",
    ])  # fmt: skip
    train(validate(composed.raw), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.grid == (1.0, 1.0, 0.0)
    flow, written = run.flow, run.as_written().splits
    assert bool((written.val.x[:, :2] == written.val.x[:, :2].round()).all())

    scored = flowrun("score", "run", "rows.csv", "--threshold-quantile", "0.2", "-o", "s.csv")
    assert "log_prob is of the rows as written, in the middle of their cells" in scored.stderr
    log_q, anomaly = read_table(tmp_path / "s.csv", columns=None, header="auto").values[:, 3:].T
    with torch.no_grad():
        limit = np.quantile(flow.log_prob(written.val.x).numpy(), 0.2, method="lower")
        spread_out = spread(torch.from_numpy(rows), run.grid).to(flow.points_dtype)
        nll = -float(flow.log_prob(spread_out).mean())
    assert torch.equal(anomaly.bool(), log_q < float(limit))

    told = flowrun("evaluate", "run", "--points", "rows.csv", "--json", "-")
    assert json.loads(told.stdout)["metrics"]["nll/points"] == pytest.approx(nll, abs=1e-9)
    assert nll > 0.05 - float(log_q.mean())  # or there is no difference to make


def test_the_auroc_counts_a_point_of_no_density_as_the_oddest(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("a,b,y\n1e30,1e30,1\n0,1,0\n9,9,0\n8,8,1\n")
    told = flowrun("score", folders["realnvp"], "p.csv", "--label", "y")
    assert math.isinf(float(told.stdout.splitlines()[1].split(",")[3]))
    assert "flowrun: AUROC of -log_prob: 0.7500" in told.stderr


# --- columns by name ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(compose: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run on a table of heights and weights."""
    folder = tmp_path_factory.mktemp("named")
    x = np.random.default_rng(0).normal([170.0, 70.0], [8.0, 9.0], (200, 2))
    rows = "\n".join(f"{a:.17g},{b:.17g}" for a, b in x)
    (folder / "people.csv").write_text(f"height,weight\n{rows}\n")
    train(
        validate(
            compose(
                "data=table", f"data.path={folder / 'people.csv'}", "model=affine", "logger=none",
                "trainer.max_steps=1", "trainer.figures=false", "trainer.device=cpu",
            )
        ),
        folder / "run",
    )  # fmt: skip
    return folder / "run"


FILES = {
    "own": "height,weight\n170,70\n160,55\n",
    "swapped": "weight,height\n70,170\n55,160\n",
    "more": "who,weight,note,height\nAda,70,a,170\nBob,55,,160\n",
    "headerless": "170,70\n160,55\n",
}


def scored(flowrun: Flowrun, folder: Path, text: str, *options: str) -> list[float]:
    Path("p.csv").write_text(text)
    told = flowrun("score", folder, "p.csv", *options)
    assert told.returncode == 0, told.stderr
    assert "by height,weight:" in told.stderr or text == FILES["headerless"]
    return [float(line.rpartition(",")[2]) for line in told.stdout.splitlines()[1:]]


def test_columns_are_found_by_the_names_of_the_run(
    flowrun: Flowrun, named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = scored(flowrun, named, FILES["own"])
    for text in FILES.values():
        assert scored(flowrun, named, text) == own
    assert scored(flowrun, named, FILES["swapped"], "--columns", "weight,height") == own
    other = FILES["own"].replace("height", "a")
    Path("p.csv").write_text(other)
    told = flowrun("score", named, "p.csv")
    assert told.returncode == 1
    assert told.stderr == (
        f"flowrun: p.csv: no column 'height'; {named} models 'height', 'weight': name the columns "
        "to take, in this order, with --columns\n"
    )
    Path("p.csv").write_text(other)
    assert "by a,weight:" in flowrun("score", named, "p.csv", "--columns", "a,weight").stderr


def test_what_score_wrote_is_read_again(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    flowrun("sample", folders["realnvp"], "-n", "5", "-o", "drawn.csv")
    flowrun("score", folders["realnvp"], "drawn.csv", "-o", "scored.csv")
    told = flowrun("evaluate", folders["realnvp"], "--points", "scored.csv")
    assert told.returncode == 0, told.stderr
