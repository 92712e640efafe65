"""`flowrun evaluate`: the figures of a run, by a chosen solver, or on a user's points."""

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flowtrain
from flowtrain.cli.compose import compose_option
from flowtrain.config import CONF
from flowtrain.config.schema import Config
from flowtrain.evaluation.findings import measured
from flowtrain.live import handling
from flowtrain.runs.load import open_run
from flowtrain.training.trainer import train

SOLVERS = sorted({path.stem for path in (CONF / "solver").glob("*.yaml")} - {"none"})

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_evaluation_gives_the_figures_that_the_run_recorded(
    flowrun: Flowrun, folders: dict[str, Path], model: str
) -> None:
    told = flowrun("evaluate", folders[model], "--json", "-")
    assert told.returncode == 0
    report = json.loads(told.stdout)
    recorded = json.loads((folders[model] / "result.json").read_text())
    assert report["metrics"].keys() == recorded["metrics"].keys()
    for tag, value in recorded["metrics"].items():
        assert report["metrics"][tag] == pytest.approx(value, rel=1e-4, abs=1e-6), tag
    assert (report["model"], report["checkpoint"]) == (model, "best")
    assert report["step"] == recorded["best_step"]


def test_evaluation_prints_a_table_and_writes_json(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    told = flowrun("evaluate", folders["realnvp"], "--checkpoint", "last", "--json", "out.json")
    metrics = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert "last weights, of step 20" in told.stdout
    header, *lines = told.stdout.splitlines()
    assert header == "realnvp on gaussian_mixture, seed 0, in nats"
    assert len(lines) > len(measured(metrics)) >= 8
    for line, (name, value) in zip(lines, measured(metrics).items(), strict=False):
        assert line == f"  {name:<22}{value}"
    assert told.stderr == f"flowrun: wrote out.json: {len(metrics)} metrics\n"


def test_evaluation_prints_what_the_training_ended_with(
    flowrun: Flowrun, tmp_path: Path, tiny: Callable[..., Config]
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    with handling(handler):
        train(tiny(model="ffjord"), tmp_path / "run")
    told = flowrun("evaluate", "run").stdout.splitlines()
    ended = lines[lines.index("ffjord on gaussian_mixture, seed 0, in nats") :]
    figures = [line for line in told if not line.startswith(("  weights", "  solver  ", "  run"))]
    assert len(figures) >= 8
    assert not {*figures} - {*ended}


def test_a_continuous_flow_is_evaluated_by_the_solver_that_is_named(
    flowrun: Flowrun, folders: dict[str, Path]
) -> None:
    def report(*options: str) -> dict[str, Any]:
        told = flowrun("evaluate", folders["ffjord"], "--json", "-", *options)
        return dict(json.loads(told.stdout))

    own, tight = report(), report("--rtol", "1e-6", "--atol", "1e-6", "--dtype", "float64")
    changed = {"rtol": 1e-6, "atol": 1e-6, "dtype": "float64"}
    assert tight["solver"] == own["solver"] | changed
    coarse = report("--solver", "euler", "--step-size", "1")
    assert coarse["solver"]["name"] == "euler"
    own_nll, tight_nll, coarse_nll = (each["metrics"]["nll/test"] for each in (own, tight, coarse))
    assert 0 < abs(own_nll - tight_nll) < 5e-3 < abs(coarse_nll - tight_nll) / 10


@pytest.mark.parametrize("option", SOLVERS)
def test_every_file_of_conf_names_a_solver(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, option: str
) -> None:
    (tmp_path / "few.csv").write_text("0,1\n1,0\n")
    told = flowrun(
        "evaluate", folders["ffjord"], "--solver", option, "--points", "few.csv", "--json", "-"
    )
    assert told.returncode == 0, told.stderr
    asked, used = compose_option("solver", option), json.loads(told.stdout)["solver"]
    assert (used["name"], used.keys()) == (asked["name"], asked.keys())


def test_a_solver_that_solves_nothing_is_refused_in_one_line(
    flowrun: Flowrun, folders: dict[str, Path]
) -> None:
    told = flowrun("evaluate", folders["ffjord"], "--solver", "none")
    assert told.returncode == 1
    assert told.stderr.startswith("flowrun: --solver: none solves nothing")
    assert len(told.stderr.splitlines()) == 1


def test_the_user_s_points_have_an_nll_with_its_standard_error(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    opened = open_run(folders["realnvp"])
    x = opened.splits.test.x
    np.save(tmp_path / "points.npy", x.numpy())
    report = json.loads(
        flowrun("evaluate", opened.folder, "--points", "points.npy", "--json", "-").stdout
    )
    recorded = json.loads((opened.folder / "result.json").read_text())["metrics"]
    figures = report["metrics"]
    assert report["rows"] == len(x)
    assert figures["nll/points"] == pytest.approx(recorded["nll/test"], abs=1e-5)
    assert figures["kl/points"] == pytest.approx(recorded["kl_paired/test"], abs=1e-5)
    assert figures["kl_error/points"] == pytest.approx(recorded["kl_paired_error/test"], rel=1e-4)
    with torch.no_grad():
        spread = opened.flow.log_prob(x).double().std().item()
    assert figures["nll_error/points"] == pytest.approx(spread / len(x) ** 0.5, rel=1e-5)
    told = flowrun("evaluate", opened.folder, "--points", "points.npy")
    assert told.stderr == ""
    shown = told.stdout
    assert "if the points follow the density of the run's data" in shown


def test_a_kl_below_zero_says_that_the_points_may_be_of_another_density(
    flowrun: Flowrun, folders: dict[str, Path]
) -> None:
    flowrun("sample", folders["realnvp"], "-n", "200", "-o", "own.npy")
    told = flowrun("evaluate", folders["realnvp"], "--points", "own.npy")
    assert told.returncode == 0
    assert told.stderr == (
        "flowrun: KL is below zero by more than twice its error: the points may not be from the "
        "data's density (for example, they may be the model's own samples)\n"
    )


def test_a_single_point_has_no_standard_error(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "one.csv").write_text("c,b,a\n0,1,2\n")
    told = flowrun(
        "evaluate", folders["realnvp"], "--points", "one.csv", "--columns", "a,1", "--json", "-"
    )
    figures = json.loads(told.stdout)["metrics"]
    assert figures.keys() == {"nll/points", "kl/points"}
    with torch.no_grad():
        log_q = flowtrain.load(folders["realnvp"]).log_prob(torch.tensor([[2.0, 1.0]]))
    assert figures["nll/points"] == pytest.approx(-log_q.item(), rel=1e-6)


def test_a_figure_that_is_not_finite_is_null_in_json(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "far.csv").write_text("1e30,1e30\n")
    told = flowrun("evaluate", folders["realnvp"], "--points", "far.csv", "--json", "-")
    assert json.loads(told.stdout)["metrics"]["nll/points"] is None
