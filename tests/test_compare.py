"""Runs side by side: which are found, how they are grouped, which is best, what is drawn."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from matplotlib.colors import to_hex

from flowtrain import plots
from flowtrain.compare import compare, picture, write_comparison
from flowtrain.config import Config
from flowtrain.errors import UserError
from flowtrain.records import find_runs
from flowtrain.train import train


def bold(text: str) -> str:
    return f"*{text}*"


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes what a run's folder records of it."""

    def write(
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
    ) -> Path:
        folder = tmp_path / name
        (folder / ".hydra").mkdir(parents=True)
        law = {"name": data} if isinstance(data, str) else data
        whole = {"model": {"name": model}, "data": law, "seed": seed, **(config or {})}
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(whole))
        tags = {tag.replace("__", "/"): value for tag, value in metrics.items()}
        result = {
            "status": status, "model": model, "data": law["name"], "seed": seed,
            "parameters": parameters, "seconds": 20.0, "metrics": tags,
            **({} if error is None else {"error": error}),
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
        curve = [{"step": step, "seconds": 1.0 * step, "nll/val": 3 - step / 10} for step in (0, 5)]
        lines = [json.dumps(line | {"kl/val": line["nll/val"] - 2}) for line in curve]
        (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 10, "nll/v']))
        return folder

    return write


def test_the_runs_of_a_group_are_averaged_with_their_standard_error(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    for seed, kl in enumerate((0.1, 0.2, 0.6)):
        record(f"a{seed}", seed=seed, kl__test=kl, nll__test=2.5 + kl)
    record("b", model="ffjord", parameters=2000, kl__test=0.25, nll__test=2.0)
    comparison = compare([tmp_path])
    assert comparison.columns == [
        "model", "data", "kl/test", "nll/test", "runs", "parameters", "seconds",
    ]  # fmt: skip
    assert [*comparison.cells(bold)] == [
        ["ffjord", "moons", "*0.2500*", "*2.0000*", "1", "2,000", "20"],
        ["realnvp", "moons", "0.3000 ± 0.1528", "2.8000 ± 0.1528", "3", "100", "20"],
    ]
    assert comparison.notes == []


def test_each_data_set_has_its_own_best(record: Callable[..., Path], tmp_path: Path) -> None:
    for data, offset in (("moons", 0.0), ("rings", 1.0)):
        record(f"{data}-a", data=data, model="realnvp", kl__test=offset + 0.2)
        record(f"{data}-b", data=data, model="ffjord", kl__test=offset + 0.1)
    record("alone", data="circles", kl__test=0.001)
    comparison = compare([tmp_path])
    assert [cells[:3] for cells in comparison.cells(bold)] == [
        ["realnvp", "circles", "0.0010"],  # better than nobody
        ["ffjord", "moons", "*0.1000*"],
        ["realnvp", "moons", "0.2000"],
        ["ffjord", "rings", "*1.1000*"],
        ["realnvp", "rings", "1.2000"],
    ]


def test_data_of_one_name_and_other_settings_is_another_data_set(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    for noise in (0.1, 0.2):
        for model in ("realnvp", "ffjord"):
            law = {"name": "moons", "noise": noise}
            record(f"{model}{noise}", model=model, data=law, kl__test=noise)
    comparison = compare([tmp_path])
    assert comparison.keys == ("model", "data", "data.noise")
    assert len(comparison.best("kl/test")) == 2


def test_groups_over_several_data_sets_compete_only_over_the_same_ones(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    for model, data_sets in (("realnvp", "ab"), ("ffjord", "ab"), ("spline", "a")):
        for data in data_sets:
            record(f"{model}-{data}", model=model, data=data, kl__test=len(model))
    comparison = compare([tmp_path], group_by=["model"])
    assert [cells[1][0] for cells in comparison.cells(bold)] == ["*", "6", "7"]
    assert comparison.notes[0].startswith("model=ffjord: a mean over runs that differ in data;")


def test_a_kl_that_cannot_be_true_is_nobody_s_best(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    cheat = record("cheat", model="ffjord", kl__test=-3.0, kl_error__test=1e-4)
    record("honest", kl__test=0.01, kl_error__test=1e-4)
    comparison = compare([tmp_path])
    assert [cells[2] for cells in comparison.cells(bold)] == ["-3.0000", "*0.0100*"]
    assert comparison.notes == [
        f"{cheat}: KL is -3.0000, below zero: this likelihood is wrong, not good"
    ]


def test_where_lower_is_not_better_there_is_no_best(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    record("a", mass__test=0.999)
    record("b", model="ffjord", mass__test=1.0)
    assert compare([tmp_path], metrics=["mass/test"]).best("mass/test") == set()


def test_what_else_the_runs_differ_in_makes_a_group_by_itself(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    for seed in (0, 1):
        for lr in (1e-3, 1e-2):
            optimizer = {"optimizer": {"name": "adam", "lr": lr}, "trainer": {"threads": seed}}
            record(f"{seed}-{lr}", seed=seed, config=optimizer, kl__test=lr)
    comparison = compare([tmp_path])
    assert comparison.keys == ("model", "data", "optimizer.lr")
    assert [group.values[-1] for group in comparison.groups] == ["0.001", "0.01"]
    assert comparison.notes == []

    mixed = compare([tmp_path], group_by=["model", "data"])
    assert len(mixed.groups) == 1
    assert mixed.notes == [
        "model=realnvp, data=moons: a mean over runs that differ in optimizer.lr; see --group-by"
    ]


def test_a_group_s_own_key_gives_its_name(record: Callable[..., Path], tmp_path: Path) -> None:
    record("a", config={"solver": {"name": "rk4", "step_size": 0.1}}, kl__test=0.2)
    record("b", config={"solver": {"name": "dopri5", "rtol": 1e-4}}, kl__test=0.1)
    record("c", kl__test=0.3)
    named = compare([tmp_path], group_by=["solver"])
    assert [group.values for group in named.groups] == [("dopri5",), ("rk4",), ("-",)]
    assert compare([tmp_path]).keys == ("model", "data", "solver")  # not its settings, too


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("kl/test", ["64", "8", "512"]),
        ("model.width", ["8", "64", "512"]),
        ("parameters", ["512", "64", "8"]),
    ],
)
def test_rows_are_sorted_by_any_column(
    record: Callable[..., Path], tmp_path: Path, column: str, order: list[str]
) -> None:
    for width, kl in ((512, 0.3), (8, 0.2), (64, 0.1)):
        config = {"model": {"name": "realnvp", "width": width}}
        record(str(width), config=config, kl__test=kl, parameters=1000 - width)
    assert [group.values[-1] for group in compare([tmp_path], sort=column).groups] == order


def test_others_than_completed_runs_are_named_below_the_table(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    record("0", kl__test=0.1)
    record("1", status="failed", error="5 steps in a row failed\nand more")
    record("2", status="interrupted", nll__val=3.0)
    record("3", status="running")
    record("4")
    (tmp_path / "4" / "result.json").unlink()
    record("5")
    (tmp_path / "5" / "result.json").write_text('{"status": "comp')
    record("6")
    (tmp_path / "6" / "result.json").write_text('{"score": 3}')
    comparison = compare([tmp_path])
    assert sum(len(group.runs) for group in comparison.groups) == 1
    assert comparison.notes == [
        f"not in the table: {tmp_path / name}: {why}"
        for name, why in (
            ("1", "failed: 5 steps in a row failed"),
            ("2", "interrupted"),
            ("3", "running, or killed"),
            ("4", "without a result.json"),
            ("5", "with a result.json that is no run's"),
            ("6", "with a result.json that is no run's"),
        )
    ]


def test_without_a_known_law_nll_is_compared_and_that_is_said(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    record("mine-a", data="table", nll__test=1.0)
    record("mine-b", data="table", model="ffjord", nll__test=0.9)
    comparison = compare([tmp_path])
    assert comparison.metrics == ("nll/test",)
    assert comparison.notes == ["no KL on table, whose law is not known: compare by nll/test there"]

    record("toy", kl__test=0.1, nll__test=2.0)
    comparison = compare([tmp_path])
    assert [cells[1:4] for cells in comparison.cells(bold)] == [
        ["moons", "0.1000", "2.0000"],
        ["table", "-", "*0.9000*"],
        ["table", "-", "1.0000"],
    ]
    assert len(comparison.notes) == 1
    assert picture(comparison).ndim == 3


def test_runs_are_found_once_at_any_depth(record: Callable[..., Path], tmp_path: Path) -> None:
    inner = record("sweep/deep/0", kl__test=0.1)
    outer = record("1", kl__test=0.1)
    found = find_runs([inner, tmp_path, tmp_path / "sweep" / "." / "deep"])
    assert [run.folder for run in found] == [inner, outer]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": ["model", "model.widht"]}, "no run has a key 'model.widht'; did you mean"),
        ({"group_by": ["xyz"]}, "no run has a key 'xyz'; see .hydra/config.yaml of a run"),
        ({"metrics": ["kl/tset"]}, "no completed run has 'kl/tset'; choose from kl/test"),
        ({"sort": "kl"}, "--sort: no column 'kl'; choose from model, data, kl/test, runs,"),
    ],
)
def test_what_no_run_has_is_refused(
    record: Callable[..., Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    record("0", config={"model": {"name": "realnvp", "width": 3}}, kl__test=0.1)
    with pytest.raises(UserError) as caught:
        compare([tmp_path], **options)
    assert message in str(caught.value)


def test_folders_without_a_completed_run_are_refused(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, message in (
        ("nowhere", "no such folder"),
        ("file", "a file, no folder"),
        ("empty", "no folder has a result.json"),
    ):
        with pytest.raises(UserError, match=message):
            compare([tmp_path / name])
    record("0", status="failed")
    record("1", status="running")
    with pytest.raises(UserError, match="is completed: 1 failed, 1 running"):
        compare([tmp_path])
    assert write_comparison(tmp_path) == []


def test_markdown_and_csv_hold_the_table(record: Callable[..., Path], tmp_path: Path) -> None:
    record("0", seed=0, kl__test=0.1, config={"tag": "a|b"})
    record("1", seed=1, kl__test=0.2, config={"tag": "a|b"})
    record("2", model="ffjord", kl__test=0.3, config={"tag": "a|b"})
    record("3", status="failed")
    comparison = compare([tmp_path], group_by=["model", "tag"])
    header, rule, first, _, blank, note = comparison.markdown().splitlines()
    assert header == "| model | tag | kl/test | runs | parameters | seconds |"
    assert rule == "| --- | --- | --: | --: | --: | --: |"
    assert first == r"| realnvp | a\|b | **0.1500 ± 0.0500** | 2 | 100 | 20 |"
    assert (blank, note[:20]) == ("", "- not in the table: ")

    rows = [*csv.DictReader(comparison.csv().splitlines())]
    assert rows[0]["tag"] == "a|b"
    assert float(rows[0]["kl/test"]) == pytest.approx(0.15)
    assert float(rows[0]["kl/test standard error"]) == pytest.approx(0.05)
    assert rows[1]["kl/test standard error"] == ""
    assert int(rows[0]["runs"]) == 2


def test_a_sweep_of_real_runs_gets_table_and_picture(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    for couplings in (2, 3):
        for seed in (0, 1):
            config = tiny(f"model.couplings={couplings}", f"seed={seed}", "trainer.max_steps=10")
            train(config, tmp_path / f"{couplings}-{seed}")
    written = write_comparison(tmp_path)
    assert [path.name for path in written] == ["compare.csv", "compare.md", "compare.png"]
    rows = [*csv.DictReader(written[0].read_text().splitlines())]
    assert sorted((row["model.couplings"], row["runs"]) for row in rows) == [("2", "2"), ("3", "2")]
    assert written[1].read_text().count("**") == 4  # KL and NLL have their best
    with PIL.Image.open(written[2]) as image:
        assert image.format == "PNG"
    assert write_comparison(tmp_path) == written  # they are no runs, and may be replaced


# --- the picture --------------------------------------------------------------------------------


def curves(group: str, **changes: Any) -> plots.Curves:
    settings: dict[str, Any] = {
        "data": "moons", "steps": [0, 10, 20], "seconds": [0, 1, 2], "nll": [9e9, 3.0, 2.5],
        "kl": [9e9, 0.6, 0.1], "entropy": 2.4, "parameters": 100, "final": 0.1,
    }  # fmt: skip
    return plots.Curves(group=group, **(settings | changes))


def test_the_picture_has_three_panels_for_each_data_set() -> None:
    runs = [curves("a"), curves("a"), curves("b", parameters=10_000), curves("a", data="rings")]
    figure = plots.comparison_figure(runs)
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        "moons: NLL over steps", "KL against time", "KL against parameters",
    ]  # fmt: skip
    assert len(figure.axes) == 6
    nll, time, parameters = figure.axes[:3]
    assert [len(axis.lines) for axis in (nll, time, parameters)] == [4, 3, 3]
    (floor,) = (line for line in nll.lines if line.get_label() == plots.ENTROPY)
    assert np.asarray(floor.get_ydata()).tolist() == [2.4, 2.4]
    assert nll.get_ylim()[0] < 2.4
    assert [line.get_color() for line in time.lines[:2]] == [nll.lines[0].get_color()] * 2
    assert time.lines[2].get_color() != time.lines[0].get_color()
    assert (time.get_yscale(), time.get_xscale()) == ("log", "linear")
    assert parameters.get_xscale() == "log"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", plots.ENTROPY]


def test_a_first_evaluation_far_off_does_not_flatten_the_curves() -> None:
    runs = [curves("a", steps=range(9), seconds=range(9), nll=[9e9, *[2.5] * 8], kl=[0.1] * 9)]
    assert plots.comparison_figure(runs).axes[0].get_ylim()[1] < 3


def test_without_kl_the_panels_show_nll() -> None:
    figure = plots.comparison_figure([curves("a", kl=None, entropy=None), curves("b")])
    assert [axis.get_title() for axis in figure.axes[1:]] == [
        "NLL against time", "NLL against parameters",
    ]  # fmt: skip
    assert np.asarray(figure.axes[1].lines[0].get_ydata()).tolist() == [9e9, 3.0, 2.5]


def test_figures_that_are_no_number_do_not_spoil_the_picture() -> None:
    nan = [float("nan")] * 3
    assert plots.pixels(plots.comparison_figure([curves("a", nll=nan, kl=nan, final=nan[0])])).any()
    many = [curves(f"group {index} of a name that is long", kl=[-1, 0, 1]) for index in range(12)]
    figure = plots.comparison_figure(many)
    assert len({to_hex(line.get_color()) for line in figure.axes[1].lines}) == 12
    assert plots.pixels(figure).any()
