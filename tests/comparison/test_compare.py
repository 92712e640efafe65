"""Runs side by side: how they are grouped and ordered, and what is noted."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.comparison.compare import compare
from flowtrain.comparison.summary import RunSummary, find_runs
from flowtrain.comparison.table import render_csv, render_markdown
from flowtrain.comparison.write import picture
from flowtrain.config.schema import Config
from flowtrain.errors import UserError
from flowtrain.runs.migrate import SCHEMA
from flowtrain.training.trainer import train


def bold(text: str) -> str:
    return f"*{text}*"


def run(
    name: str,
    *,
    model: str = "realnvp",
    data: dict[str, Any] | str = "moons",
    seed: int = 0,
    status: str = "completed",
    config: dict[str, Any] | None = None,
    parameters: int = 100,
    error: str | None = None,
    **metrics: float | None,
) -> RunSummary:
    """Return what a run's folder would record of it; `kl__test` names the metric kl/test."""
    density = {"name": data} if isinstance(data, str) else data
    whole = {"model": {"name": model}, "data": density, "seed": seed, **(config or {})}
    result = {
        "status": status, "model": model, "data": density["name"], "seed": seed,
        "parameters": parameters, "seconds": 20.0,
        "metrics": {tag.replace("__", "/"): value for tag, value in metrics.items()},
        "config": {"schema": SCHEMA, **whole}, **({} if error is None else {"error": error}),
    }  # fmt: skip
    return RunSummary(Path(name), status, result)


def test_the_runs_of_a_model_on_the_same_data_are_one_row() -> None:
    runs = [run(f"a{seed}", seed=seed, kl__test=0.1 * seed) for seed in range(3)]
    runs.append(run("b", model="ffjord", parameters=2000, kl__test=0.05))
    comparison = compare(runs)
    assert comparison.keys == ("model", "data")
    assert [(row.values, len(row.runs)) for row in comparison.rows] == [
        (("ffjord", "moons"), 1), (("realnvp", "moons"), 3),
    ]  # fmt: skip
    assert comparison.notes == []


def test_columns_are_what_some_of_the_runs_are_judged_by() -> None:
    reverse = {"objective": {"name": "reverse_kl"}}
    known = run("a", kl__test=0.1, nll__test=2.5, kl_reverse__test=0.2)
    wave = run("b", data="u2", kl__test=0.3, kl_reverse__test=0.1, elbo__test=1.0, config=reverse)
    unknown = run("c", data="unnormalized", elbo__test=1.5, ess__test=0.5, config=reverse)
    assert compare([known]).metrics == ("kl/test", "nll/test")
    assert compare([wave]).metrics == ("kl/test", "kl_reverse/test")
    assert compare([unknown]).metrics == ("elbo/test", "ess/test")
    assert compare([known, wave, unknown]).metrics == (
        "kl/test", "nll/test", "kl_reverse/test", "elbo/test", "ess/test",
    )  # fmt: skip


def test_the_best_row_comes_first_where_higher_is_better() -> None:
    reverse = {"objective": {"name": "reverse_kl"}}
    runs = [
        run(model, model=model, data="unnormalized", elbo__test=elbo, config=reverse)
        for model, elbo in (("realnvp", 1.0), ("spline", 2.0), ("glow", -1.0))
    ]
    order = [row.values[0] for row in compare(runs).rows]
    assert order == ["spline", "realnvp", "glow"]
    assert [row.values[0] for row in compare(runs, sort="elbo/test").rows] == order


def test_rows_are_in_the_order_of_their_data_then_of_their_metrics() -> None:
    runs = [
        run(f"{data}-{model}", data=data, model=model, kl__test=kl)
        for data in ("rings", "circles")
        for model, kl in (("realnvp", 0.2), ("ffjord", 0.1))
    ]
    assert [row.values for row in compare(runs).rows] == [
        ("ffjord", "circles"), ("realnvp", "circles"), ("ffjord", "rings"), ("realnvp", "rings"),
    ]  # fmt: skip


def test_data_of_one_name_and_other_settings_is_another_data_set() -> None:
    runs = [
        run(f"{model}{noise}", model=model, data={"name": "moons", "noise": noise}, kl__test=noise)
        for noise in (0.1, 0.2)
        for model in ("realnvp", "ffjord")
    ]
    comparison = compare(runs)
    assert comparison.keys == ("model", "data", "data.noise")
    assert len(comparison.best("kl/test")) == 2


def test_data_that_differ_between_models_alone_are_told_apart_and_do_not_compete() -> None:
    loud = {"name": "moons", "noise": 0.5}
    runs = [
        run("a", model="affine", data=loud, kl__test=0.03),
        run("b", model="realnvp", data={"name": "moons", "noise": 0.1}, kl__test=0.15),
    ]
    comparison = compare(runs)
    assert comparison.keys == ("model", "data", "data.noise")
    assert comparison.best("kl/test") == set()  # nothing on the same data to compare with
    data_sets = {comparison.data_set(each) for row in comparison.rows for each in row.runs}
    assert data_sets == {"moons data.noise=0.1", "moons data.noise=0.5"}


@pytest.mark.parametrize("group_by", [None, ["model"], ["model", "data"]])
def test_tables_go_by_their_files(group_by: list[str] | None) -> None:
    rows = {"splits": {"name": "random", "val": 0.1, "test": 0.1, "seed": 0}}
    runs = [
        run(name, model=model, data={"name": "table", "path": f"/a/{name}.csv"}, config=rows,
            nll__test=nll)
        for name, model, nll in (("one", "ffjord", 1.7), ("twenty", "spline", 52.3))
    ]  # fmt: skip
    comparison = compare(runs, group_by=group_by)
    assert comparison.best("nll/test") == set()
    names = {comparison.data_set(each) for row in comparison.rows for each in row.runs}
    assert names == {"one", "twenty"}


@pytest.mark.parametrize(
    ("paths", "tables", "keys", "best"),
    [
        (("/a/x.csv", "/b/x.csv"), ("1f" * 16, "1f" * 16), ("model", "data"), {0}),  # moved
        (("/a/x.csv", "/a/x.csv"), ("1f" * 16, "2e" * 16), ("model", "data", "data.rows"), set()),
        (("/a/x.csv", "/b/x.csv"), ("1f" * 16, None), ("model", "data", "data.path"), set()),
        (("/a/x.csv", "/a/x.csv"), (None, None), ("model", "data"), {0}),  # of older runs
    ],
)
def test_tables_of_one_name_go_by_their_rows(
    paths: tuple[str, str], tables: tuple[str | None, ...], keys: tuple[str, ...], best: set[int]
) -> None:
    runs = [
        run(model, model=model, data={"name": "table", "path": path}, nll__test=nll)
        for model, path, nll in zip(("ffjord", "spline"), paths, (1.0, 2.0), strict=True)
    ]
    for each, table in zip(runs, tables, strict=True):
        each.result.update({} if table is None else {"table": table})
    comparison = compare(runs)
    assert comparison.keys == keys
    assert comparison.best("nll/test") == best


def test_other_columns_of_a_table_need_no_column_for_their_rows() -> None:
    runs = [
        run(name, data={"name": "table", "path": "/a/x.csv", "columns": [name]}, nll__test=1.0)
        for name in ("u", "v")
    ]
    for each in runs:
        each.result["table"] = each.folder.name * 32
    assert compare(runs).keys == ("model", "data", "data.columns")


def test_another_split_of_a_table_is_another_data_set() -> None:
    def rows(seed: int) -> dict[str, Any]:
        return {"splits": {"name": "random", "val": 0.1, "test": 0.1, "seed": seed}}

    table = {"name": "table", "path": "points.csv"}
    runs = [
        run("a", model="ffjord", data=table, config=rows(0), nll__test=1.0),
        run("b", model="spline", data=table, config=rows(1), nll__test=2.0),
    ]
    comparison = compare(runs)
    assert comparison.keys == ("model", "data", "splits.seed")
    assert comparison.best("nll/test") == set()
    sampled = [
        run(name, config={"splits": {"name": "sampled", "train": size}}, kl__test=kl)
        for name, size, kl in (("a", 500, 0.4), ("b", 1000, 0.2))
    ]  # another number of training points is another run on the same data
    assert compare(sampled).best("kl/test") == {0}


def test_the_same_seed_twice_is_one_seed() -> None:
    runs = [run(name, seed=seed, kl__test=kl) for name, seed, kl in
            (("a", 0, 0.1), ("again", 0, 0.1), ("b", 1, 0.3))]  # fmt: skip
    runs[1].config["trainer.device"] = "cuda"  # does not make it another sample
    comparison = compare(runs)
    (row,) = comparison.rows
    assert [each.folder.name for each in row.runs] == ["a", "b"]
    assert row.mean("kl/test") == pytest.approx((0.2, 0.1))
    assert comparison.notes == [
        "not counted: again: it repeats the settings and the seed of another run"
    ]


def test_what_is_a_category_is_a_choice_of_the_model_and_no_other_data() -> None:
    year = {"name": "table", "path": "/sales.csv", "condition": ["year"]}
    runs = [
        run("a", data={**year, "categorical": None}, nll__test=2.5),
        run("b", data={**year, "categorical": []}, nll__test=2.0),
    ]
    comparison = compare(runs)
    assert comparison.keys == ("model", "data", "data.categorical")
    assert comparison.best("nll/test") == {0}
    assert [row.values[-1] for row in comparison.rows] == ["[]", "-"]
    assert [*map(comparison.label, comparison.rows)] == ["realnvp categorical=[]", "realnvp"]


def test_groups_over_several_data_sets_compete_only_over_the_same_ones() -> None:
    runs = [
        run(f"{model}-{data}", model=model, data=data, kl__test=len(model))
        for model, data_sets in (("ffjord", "ab"), ("realnvp", "ab"), ("spline", "a"))
        for data in data_sets
    ]
    comparison = compare(runs, group_by=["model"])
    assert [cells[1][0] for cells in comparison.cells(bold)] == ["*", "6", "7"]
    assert comparison.notes[0].startswith("model=ffjord: a mean over runs that differ in data;")


def test_a_kl_that_cannot_be_true_is_noted() -> None:
    cheat = run("cheat", model="ffjord", kl__test=-3.0, kl_error__test=1e-4)
    comparison = compare([cheat, run("honest", kl__test=0.01, kl_error__test=1e-4)])
    assert [cells[2] for cells in comparison.cells(bold)] == ["-3.0000", "*0.0100*"]
    assert comparison.notes == [
        "cheat: KL is -3.0000, below zero: this likelihood is wrong, not good"
    ]


@pytest.mark.parametrize(
    ("whitening", "init_from", "noted"),
    [("columns", None, True), ("covariance", None, False), ("columns", "outputs/other", False)],
)
def test_training_in_vain_is_noted_but_not_of_the_best_gaussian(
    whitening: str, init_from: str | None, noted: bool
) -> None:
    config = {"model": {"name": "realnvp", "whitening": whitening}, "init_from": init_from}
    vain = run("vain", config=config, kl__test=0.1)
    vain.result.update(best_step=0, step=10)
    assert any(line.startswith("vain: no evaluation") for line in compare([vain]).notes) == noted


@pytest.mark.parametrize(("number", "told"), [(5, 5), (6, 1)])
def test_a_warning_about_many_runs_is_told_once(number: int, told: int) -> None:
    runs = [run(f"run{i}", seed=i, kl__test=0.1, mass__test=0.98 - i / 100) for i in range(number)]
    notes = compare(runs).notes
    assert len(notes) == told
    assert notes[0].startswith("run0: 2.0% of the model's mass lies outside the data's window")
    assert notes[0].endswith("; likewise 5 more runs") == (number == 6)


def test_what_else_the_runs_differ_in_makes_a_group_by_itself() -> None:
    runs = [
        run(
            f"{seed}-{lr}",
            seed=seed,
            config={"optimizer": {"name": "adam", "lr": lr}, "trainer": {"threads": seed}},
            kl__test=lr,
        )
        for seed in (0, 1)
        for lr in (1e-3, 1e-2)
    ]
    comparison = compare(runs)
    assert comparison.keys == ("model", "data", "optimizer.lr")
    assert [row.values[-1] for row in comparison.rows] == ["0.001", "0.01"]
    assert comparison.notes == []

    mixed = compare(runs, group_by=["model", "data"])
    assert len(mixed.rows) == 1
    assert mixed.notes == [
        "model=realnvp, data=moons: a mean over runs that differ in optimizer.lr; see --group-by"
    ]


def test_what_does_not_change_what_is_learned_is_no_difference() -> None:
    trainers = [
        {"device": "cpu", "log_every": 5, "figures": True},
        {"device": "cuda", "log_every": 9, "figures": False},
    ]
    runs = [
        run(str(seed), seed=seed, config={"trainer": trainer, "trust_code": bool(seed)}, kl__test=1)
        for seed, trainer in enumerate(trainers)
    ]
    assert compare(runs).keys == ("model", "data")
    assert compare(runs).notes == []


def test_a_group_s_own_key_gives_its_name() -> None:
    runs = [
        run("a", config={"solver": {"name": "rk4", "step_size": 0.1}}, kl__test=0.2),
        run("b", config={"solver": {"name": "dopri5", "rtol": 1e-4}}, kl__test=0.1),
        run("c", kl__test=0.3),
    ]
    named = compare(runs, group_by=["solver"])
    assert [row.values for row in named.rows] == [("dopri5",), ("rk4",), ("-",)]
    assert compare(runs).keys == ("model", "data", "solver")  # not its settings, too


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("kl/test", ["64", "8", "512"]),
        ("model.width", ["8", "64", "512"]),
        ("parameters", ["512", "64", "8"]),
    ],
)
def test_rows_are_sorted_by_any_column(column: str, order: list[str]) -> None:
    runs = [
        run(
            str(width),
            config={"model": {"name": "realnvp", "width": width}},
            kl__test=kl,
            parameters=1000 - width,
        )
        for width, kl in ((512, 0.3), (8, 0.2), (64, 0.1))
    ]
    assert [row.values[-1] for row in compare(runs, sort=column).rows] == order


def test_others_than_completed_runs_are_named_below_the_table() -> None:
    runs = [
        run("0", kl__test=0.1),
        run("1", status="failed", error="5 steps in a row failed\nand more"),
        run("2", status="interrupted", nll__val=3.0),
        run("3", status="running"),
        RunSummary(Path("4"), "without a result.json", {}),
    ]
    comparison = compare(runs)
    assert sum(len(row.runs) for row in comparison.rows) == 1
    assert comparison.notes == [
        f"not in the table: {why}"
        for why in (
            "1: failed: 5 steps in a row failed",
            "2: interrupted",
            "3: killed",
            "4: without a result.json",
        )
    ]


def test_many_that_are_not_completed_are_counted_and_stand_in_the_file() -> None:
    failed = [run(f"{i}", status="failed", error="5 steps failed") for i in range(10)]
    stopped = [run(f"{i}", status="interrupted", nll__val=3.0) for i in (10, 11)]
    comparison = compare([run("12", kl__test=0.1), *failed, *stopped])
    counted = "12 runs are not in the table: 10 failed, 2 interrupted; flowrun list shows them"
    assert comparison.notes == [counted]
    written = render_markdown(comparison).splitlines()
    assert written[4:6] == [f"- {counted}", "- not in the table: 0: failed: 5 steps failed"]
    assert written[-1] == "- not in the table: 11: interrupted"


def test_without_a_known_density_nll_is_compared_and_that_is_said(tmp_path: Path) -> None:
    toy, mine, other = (tmp_path / name for name in ("toy", "mine", "other"))
    for folder in (toy, mine, other):
        folder.mkdir()
        curve = [{"step": step, "seconds": 1.0 * step, "nll/val": 3 - step / 10} for step in (0, 5)]
        lines = [json.dumps(line | {"kl/val": line["nll/val"] - 2}) for line in curve]
        (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 10, "nll/v']))
    runs = [
        run(str(mine), data="table", nll__test=1.0),
        run(str(other), data="table", model="ffjord", nll__test=0.9),
    ]
    comparison = compare(runs)
    assert comparison.metrics == ("nll/test",)
    assert comparison.notes == ["no KL on table, whose density is not known: compare by nll/test"]

    comparison = compare([*runs, run(str(toy), kl__test=0.1, nll__test=2.0)])
    assert [cells[1:4] for cells in comparison.cells(bold)] == [
        ["moons", "0.1000", "2.0000"],
        ["table", "-", "*0.9000*"],
        ["table", "-", "1.0000"],
    ]
    assert len(comparison.notes) == 1
    assert len(picture(comparison).axes) == 6  # three of each data set


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": ["model", "model.widht"]}, "no run has a key 'model.widht'; did you mean"),
        (
            {"group_by": ["xyz"]},
            "no run has a key 'xyz'; see the config in the result.json of a run",
        ),
        ({"metrics": ["kl/tset"]}, "no completed run has 'kl/tset'; choose from kl/test"),
        ({"sort": "kl"}, "--sort: no column 'kl'; choose from model, data, kl/test, runs,"),
    ],
)
def test_what_no_run_has_is_refused(options: dict[str, Any], message: str) -> None:
    runs = [run("0", config={"model": {"name": "realnvp", "width": 3}}, kl__test=0.1)]
    with pytest.raises(UserError) as caught:
        compare(runs, **options)
    assert message in str(caught.value)


def test_without_a_completed_run_there_is_nothing_to_compare() -> None:
    with pytest.raises(UserError, match=r"^none of 2 runs is completed: 1 failed, 1 running$"):
        compare([run("0", status="failed"), run("1", status="running")])


# --- real runs ----------------------------------------------------------------------------------


def test_comparing_new_runs_opens_no_checkpoint(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    for couplings in (2, 3):
        config = tiny(f"model.couplings={couplings}", "trainer.max_steps=2")
        train(config, tmp_path / str(couplings))
    before = render_csv(compare(find_runs([tmp_path])))
    assert "model.couplings" in before
    for path in tmp_path.glob("*/checkpoints/*.pt"):
        path.write_bytes(b"no checkpoint")
    assert render_csv(compare(find_runs([tmp_path]))) == before
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder / "checkpoints")
        shutil.rmtree(folder / ".hydra", ignore_errors=True)
    assert render_csv(compare(find_runs([tmp_path]))) == before


def test_runs_are_compared_without_torch(tiny: Callable[..., Config], tmp_path: Path) -> None:
    train(tiny("trainer.max_steps=2"), tmp_path)
    code = (
        "import sys; from pathlib import Path; import flowtrain.comparison.compare as c;"
        "from flowtrain.comparison.summary import find_runs;"
        f"rows = c.compare(find_runs([Path({str(tmp_path)!r})])).rows;"
        "print(len(rows), *{'torch', 'numpy', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
