"""Commands on runs of p(x | c): of a table by species and age, of a density by its component."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flowtrain
from flowtrain.config.schema import Config, validate
from flowtrain.data.condition_column import Number
from flowtrain.data.read import read_table
from flowtrain.errors import CheckpointError
from flowtrain.runs import checkpoint
from flowtrain.runs.graph import save_pt2, trace
from flowtrain.runs.load import open_run
from flowtrain.training.trainer import train

Flowrun = Callable[..., subprocess.CompletedProcess[str]]

BRIEF = ("trainer=debug", "trainer.device=cpu", "trainer.threads=1", "trainer.max_steps=4",
         "trainer.evaluate_every=2", "trainer.figures=false", "model=realnvp", "model.couplings=2",
         "model.hidden=8", "model.depth=1")  # fmt: skip
KNOWN = "species (cat, dog or fox), age (a number, "


@pytest.fixture(scope="module")
def runs(
    compose: Callable[..., dict[str, Any]],
    tiny: Callable[..., Config],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Return the folders of two runs of p(x | c), and the file of the table."""
    home = tmp_path_factory.mktemp("conditional")
    rng = np.random.default_rng(0)
    species, age = rng.choice(["cat", "dog", "fox"], 500), rng.uniform(1, 12, 500)
    x = rng.normal(size=(500, 2)) + age[:, None] * np.where(species == "cat", 0.1, 1.0)[:, None]
    rows = zip(species, age.tolist(), x.tolist(), strict=True)
    lines = [f"{s},{a!r},{pair[0]!r},{pair[1]!r}" for s, a, pair in rows]
    (home / "animals.csv").write_text("\n".join(["species,age,height,weight", *lines]))
    path = f"data.path={home / 'animals.csv'}"
    config = compose("data=table", path, "data.condition=[species,age]", *BRIEF)
    train(validate(config), home / "table")
    train(tiny("data=moons", "data.condition=component"), home / "moons")
    return {name: home / name for name in ("table", "moons", "animals.csv")}


def test_a_user_says_which_columns_are_categories(
    flowtrain: Callable[..., subprocess.CompletedProcess[str]], flowrun: Flowrun, tmp_path: Path
) -> None:
    lines = [f"{2015 + row % 5},{row % 25},{row / 10},{row % 7}" for row in range(200)]
    (tmp_path / "sales.csv").write_text("\n".join(["year,shop,price,number", *lines]))
    table = ("data=table", "data.path=sales.csv", "data.condition=[year,shop]", *BRIEF)
    told = flowtrain(*table, "data.categorical=[1]", "hydra.run.dir=run")
    assert told.returncode == 0, told.stderr
    assert "given of each point: year (a number, 2015 to 2019 in training), shop (0, 1, 2" in (
        told.stdout
    )
    given = ("--given", "year=2016.5", "shop=24")
    assert flowrun("sample", "run", "-n", "3", "-o", "three.csv", *given).returncode == 0
    assert {tuple(row[-2:]) for row in cells(tmp_path / "three.csv")[1:]} == {("2016.5", "24")}
    assert flowrun("score", "run", "three.csv", "-o", "scores.csv").returncode == 0
    told = flowrun("sample", "run", "-n", "3", "-o", "three.csv", "--given", "year=2016", "shop=25")
    assert "condition 'shop': '25' is unknown; known: '0', '1', '2'" in told.stderr

    for categorical, message in (
        ("[price]", "sales.csv: column 'price' is no condition, it cannot be a category; the "
         "condition is 'year', 'shop'"),
        ("[month]", "sales.csv: no column 'month'; it has 'year', 'shop', 'price', 'number'"),
    ):  # fmt: skip
        told = flowtrain(*table, f"data.categorical={categorical}", "hydra.run.dir=other")
        assert told.returncode == 1
        assert told.stderr.endswith(f"{message}\n")
        assert len(told.stderr.splitlines()) == 1
    told = flowtrain(*table, "data.categorical=[year]", "data.condition=null")
    assert told.stderr == (
        "flowtrain: data: categorical names columns of condition, which is null; leave it null\n"
    )


def cells(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_the_report_says_what_is_given_and_whom_to_beat(runs: dict[str, Path]) -> None:
    metrics = json.loads((runs["table"] / "result.json").read_text())["metrics"]
    assert "nll_gaussian_linear/test" in metrics
    assert not {"nll_gaussian/test", "nll_kde/test", "nll_gaussian_by_class/test"} & {*metrics}


def test_samples_stand_beside_their_condition_and_are_scored_by_it(
    flowrun: Flowrun, runs: dict[str, Path], tmp_path: Path
) -> None:
    drawn = flowrun(
        "sample", runs["table"], "--given", "species=cat", "--given", "age=4.5", "-n", "30",
        "-o", "cats.csv",
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert "species=cat, age=4.5" in drawn.stderr
    header, *rows = cells(tmp_path / "cats.csv")
    assert header == ["height", "weight", "species", "age"]
    assert {tuple(row[2:]) for row in rows} == {("cat", "4.5")}
    x = torch.tensor([[float(cell) for cell in row[:2]] for row in rows], dtype=torch.float64)
    flow = flowtrain.load(runs["table"])
    assert flow.condition is not None
    cat = flow.condition.encode({"species": "cat", "age": 4.5})
    assert torch.equal(flow.sample(30, torch.Generator().manual_seed(0), cat), x)
    with torch.no_grad():
        expected = flow.log_prob(x, cat)
    for more in ((), ("--given", "species=cat", "age=4.5")):
        scored = flowrun("score", runs["table"], "cats.csv", "-o", "scores.csv", *more)
        assert scored.returncode == 0, scored.stderr
        found = [float(row[4]) for row in cells(tmp_path / "scores.csv")[1:]]
        torch.testing.assert_close(torch.tensor(found), expected.float(), rtol=1e-5, atol=1e-5)
        assert (" given species,age:" in scored.stderr) == (not more)
    told = flowrun("evaluate", runs["table"], "--points", "cats.csv", "--json", "-")
    nll = json.loads(told.stdout)["metrics"]["nll/points"]
    assert nll == pytest.approx(-expected.mean().item(), abs=1e-5)


def test_each_row_of_a_file_is_scored_at_its_own_condition(
    flowrun: Flowrun, runs: dict[str, Path], tmp_path: Path
) -> None:
    told = flowrun(
        "score", runs["table"], runs["animals.csv"], "-o", "s.csv", "--threshold-quantile", "0.1"
    )
    assert told.returncode == 0, told.stderr
    given = {"species": "species", "age": "age"}
    table = read_table(runs["animals.csv"], columns=None, header="auto", condition=[*given])
    run = open_run(runs["table"])
    assert run.condition is not None
    with torch.no_grad():
        expected = run.flow.log_prob(table.values, run.condition.encode(table.given))
    found = torch.tensor([float(row[4]) for row in cells(tmp_path / "s.csv")[1:]])
    torch.testing.assert_close(found, expected.float())
    assert 20 < sum(row[5] == "1" for row in cells(tmp_path / "s.csv")[1:]) < 90


def test_a_component_is_given_by_its_number_and_its_kl_is_exact(
    flowrun: Flowrun, runs: dict[str, Path], tmp_path: Path
) -> None:
    flowrun("sample", runs["moons"], "--given", "component=1", "-n", "50", "-o", "arc.csv")
    assert {row[2] for row in cells(tmp_path / "arc.csv")[1:]} == {"1"}
    for more in ((), ("--given", "component=1")):
        told = flowrun("evaluate", runs["moons"], "--points", "arc.csv", "--json", "-", *more)
        metrics = json.loads(told.stdout)["metrics"]
        table = read_table(tmp_path / "arc.csv", columns=[0, 1], header="auto")
        run = open_run(runs["moons"])
        assert run.condition is not None
        at = run.given(run.condition.encode({"component": 1}))
        assert at.density is not None
        with torch.no_grad():
            gap = at.density.log_prob(table.values) - at.flow.log_prob(table.values)
        assert metrics["kl/points"] == pytest.approx(gap.mean().item(), abs=1e-4)


@pytest.mark.parametrize(
    ("command", "run", "message"),
    [
        ("sample -n 1 -o -", "table", f"is a run of p(x | c), c: {KNOWN}"),
        ("sample -n 1 -o - --given species=cat", "table", "--given: 'age' is missing; the cond"),
        ("sample -n 1 -o - --given species=rat age=1", "table",
         "--given: condition 'species': 'rat' is unknown; known: 'cat', 'dog', 'fox'"),
        ("sample -n 1 -o - --given species=cat age=old", "table",
         "--given: condition 'age': 'old' is no finite number"),
        ("sample -n 1 -o - --given species=cat age=1 sex=f", "table",
         "--given: 'sex' is no condition; the conditions are " + KNOWN),
        ("sample -n 1 -o - --given age=1 --given age=2 species=cat", "table",
         "--given: age is given twice"),
        ("sample -n 1 -o - --given component=2", "moons", "'2' is unknown; known: '0', '1'"),
        ("evaluate --given species=cat age=4", "table",
         "points is at this condition: species=cat, age=4"),
        ("score no-age.csv", "table",
         "no-age.csv: no column 'age'; it has 'height', 'weight', 'species'; it is a condition"),
        ("score rat.csv", "table", "rat.csv: condition 'species', row (from 0) 1: 'rat' is unkno"),
        ("evaluate --points rat.csv", "table", "'rat' is unknown; known: 'cat', 'dog', 'fox'"),
        ("score empty.csv", "table", "empty.csv, line 3, column 'age': the value is missing; fill"),
    ],
)  # fmt: skip
def test_a_condition_that_does_not_fit_is_told_in_one_line(
    flowrun: Flowrun, runs: dict[str, Path], tmp_path: Path, command: str, run: str, message: str
) -> None:
    (tmp_path / "no-age.csv").write_text("height,weight,species\n1.5,2,cat\n")
    rows = "height,weight,species,age\n1.5,2,cat,3\n"
    (tmp_path / "rat.csv").write_text(f"{rows}1,2,rat,3\n")
    (tmp_path / "empty.csv").write_text(f"{rows}1,2,cat,\n")
    name, *arguments = command.split()
    told = flowrun(name, runs[run], *arguments)
    assert told.returncode == 1
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert message in line


def test_a_condition_of_a_run_without_one_is_refused(
    flowrun: Flowrun, folders: dict[str, Path]
) -> None:
    told = flowrun("sample", folders["realnvp"], "-n", "1", "-o", "-", "--given", "species=cat")
    assert (told.returncode, told.stdout) == (1, "")
    assert "is no run of p(x | c); leave it out" in told.stderr
    told = flowrun("sample", folders["realnvp"], "-n", "1", "-o", "-", "--given", "cat")
    assert told.returncode == 2
    assert "'cat' is refused: it should be NAME=VALUE" in told.stderr


def test_a_number_beyond_the_training_rows_is_warned_about(
    flowrun: Flowrun, runs: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    flowrun("sample", runs["table"], "--given", "species=cat", "age=99", "-n", "1", "-o", "-")
    assert "--given: age=99 lies beyond the training rows" in caplog.text


def test_a_diagnosis_tells_each_kind_and_each_third(
    flowrun: Flowrun, runs: dict[str, Path], tmp_path: Path
) -> None:
    told = flowrun("diagnose", runs["table"], "-o", "report")
    assert told.returncode == 0, told.stderr
    found = json.loads((tmp_path / "report" / "diagnosis.json").read_text())
    labels = [group["label"] for group in found["by_condition"]]
    assert labels[:3] == ["species=cat", "species=dog", "species=fox"]
    assert len(labels) == 6
    assert labels[5].startswith("age>=")
    assert all(label in told.stdout for label in labels)
    assert "p of each test by itself, not corrected for the number of tests\n" in told.stdout
    assert re.search(
        r"conditions: of 6 the worst is .* \(p = \S+, corrected for 12 tests\)\n", told.stdout
    )
    for kinds in (slice(3), slice(3, 6)):
        assert sum(group["points"] for group in found["by_condition"][kinds]) == found["points"]


def test_a_list_of_runs_says_what_is_given(flowrun: Flowrun, runs: dict[str, Path]) -> None:
    told = flowrun("list", runs["table"].parent).stdout
    assert "animals | species, age" in told
    assert "moons | component" in told


def test_figures_are_drawn_of_all_conditions_and_of_one(
    flowrun: Flowrun, runs: dict[str, Path], tmp_path: Path
) -> None:
    assert flowrun("plot", runs["table"], "-o", "a.png", "--dpi", "30").returncode == 0
    one = ("plot", runs["moons"], "--given", "component=0", "--grid", "16", "--dpi", "30")
    assert flowrun(*one, "-o", "b.png").returncode == 0
    assert (tmp_path / "a.png").exists()
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("name", ["table", "moons"])
def test_a_graph_takes_the_context_as_its_second_input(
    runs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    run = open_run(runs[name])
    assert run.condition is not None
    graph = trace(run, "log_prob")
    assert graph.about["inputs"] == {"x": ["n", 2], "context": ["n", run.condition.dim]}
    assert graph.about["condition"] == run.condition.state()
    if name == "table":
        assert save_pt2(tmp_path / "model.pt2", graph) < 1e-3


def test_an_export_of_weights_keeps_the_condition(
    flowrun: Flowrun, runs: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    assert flowrun("export", runs["table"], "-o", "t.safetensors").returncode == 0
    for run in (runs["table"], "t.safetensors"):
        flowrun("sample", run, "--given", "species=dog", "age=3", "-n", "5", "-o", f"{run}.csv")
    assert Path("t.safetensors.csv").read_text() == Path(f"{runs['table']}.csv").read_text()


def test_a_checkpoint_with_a_damaged_condition_is_refused(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    state = checkpoint.read(runs["table"] / "checkpoints" / "best.pt")
    state["condition"][1]["std"] = 0.0
    state["config"] = json.loads((runs["table"] / "result.json").read_text())["config"]
    checkpoint.save(tmp_path / "checkpoints" / "best.pt", state)
    with pytest.raises(CheckpointError, match="its condition is damaged"):
        flowtrain.load(tmp_path)


def test_the_numbers_of_a_run_are_those_of_its_training_rows(runs: dict[str, Path]) -> None:
    run = open_run(runs["table"])
    assert run.condition is not None
    _, age = run.condition.columns
    assert isinstance(age, Number)
    train = run.splits.train
    assert train.context is not None
    assert train.condition == run.condition
    torch.testing.assert_close(train.context[:, 3].mean(), torch.tensor(0.0).double())
    ages = run.condition.decode(train.context)["age"].astype(float)
    assert (ages.min(), ages.max()) == pytest.approx((age.low, age.high))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("animate", "realnvp has no time to animate"),
        ("steps", "realnvp takes no steps; name a run of a continuous flow"),
    ],
)
def test_a_flow_that_is_not_continuous_is_refused_before_a_condition_is_asked_for(
    flowrun: Flowrun, runs: dict[str, Path], command: str, told: str
) -> None:
    assert flowrun(command, runs["moons"]).stderr == f"flowrun: {runs['moons']}: {told}\n"
