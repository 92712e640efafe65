"""The command `flowrun`, as a user types and mistypes it, on the folders of tiny runs."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import torch

import flowtrain
from flowtrain import __version__, flowrun
from flowtrain.config import Config, validate
from flowtrain.data.tables import read_table
from flowtrain.runs import open_run
from flowtrain.train import train

COMMANDS = ("evaluate", "sample", "score", "compare", "animate")
PROGRAM = Path(sys.executable).with_name("flowrun")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folders(
    tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return the run folders of a discrete and of a continuous flow."""
    home = tmp_path_factory.mktemp("runs")
    train(tiny("optimizer.lr=0.01"), home / "realnvp")
    train(tiny("optimizer.lr=0.1", "trainer.max_steps=10", model="ffjord"), home / "ffjord")
    return {name: home / name for name in ("realnvp", "ffjord")}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        try:
            code = flowrun.execute([str(each) for each in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run


def launch(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([PROGRAM, *arguments], env=environment, text=True, **pipes)


# --- help and mistakes --------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_command(run: Run, arguments: list[str]) -> None:
    told = run(*arguments)
    assert (told.returncode, told.stderr) == (0, "")
    assert all(f"  {name} " in told.stdout for name in COMMANDS)


def test_every_command_has_its_help(run: Run) -> None:
    for name in COMMANDS:
        assert f"usage: flowrun {name} " in run(name, "--help").stdout


def test_the_version_is_ours(run: Run) -> None:
    assert run("--version").stdout == f"flowrun {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, atexit; heavy = {'torch', 'matplotlib', 'hydra', 'sklearn', 'numpy', 'rich'};"
        "atexit.register(lambda: print('heavy:', *sorted(heavy & {*sys.modules})));"
        "sys.argv = ['flowrun', 'sample', '--help'];"
        "from flowtrain.flowrun import main; main()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize(
    "arguments", [["smaple"], ["sample", "r"], ["sample", "r", "-n", "x", "-o", "-"], ["score"]]
)
def test_a_mistyped_option_is_a_usage_error(run: Run, arguments: list[str]) -> None:
    told = run(*arguments)
    assert told.returncode == 2
    assert "usage: flowrun" in told.stderr


# Of a run R of a discrete flow, and a run C of a continuous one.
MISTAKES = [
    ("evaluate nowhere", "nowhere: no such folder"),
    ("evaluate points.csv", "points.csv: a file, not a run folder"),
    ("evaluate .", "there is no checkpoint checkpoints/best.pt: . is no run folder"),
    ("evaluate R --batch-size 0", "--batch-size: 0 is refused: it should be at least 1"),
    ("evaluate R --device cuda:77", "trainer.device: cuda:77 is not on this machine; it has cpu"),
    ("evaluate R --solver dopri5", "R: realnvp solves no ODE; a solver would have no effect"),
    ("evaluate R --rtol 1e-7", "R: realnvp solves no ODE; a solver would have no effect"),
    ("evaluate C --solver magic", "--solver: 'magic' is unknown; choose from dopri5, dopri8,"),
    ("evaluate C --solver rk4 --rtol 1", "--rtol: rk4 has no such setting; it has --step-size,"),
    ("evaluate C --rtol -1", "evaluation.solver.rtol: -1.0 is refused: it should be greater than"),
    ("evaluate R --columns x0", "--columns has no effect without --points"),
    ("evaluate R --header true", "--header has no effect without --points"),
    ("evaluate R --json folder", "folder: this is a folder; name a file"),
    ("evaluate R --json out.txt", "out.txt: .txt is unknown; use .json"),
    ("evaluate R --points three.csv", "R models 2 columns, three.csv has 3: x0, x1, x2; choose"),
    ("evaluate R --points nowhere.csv", "nowhere.csv: no such file"),
    ("sample R -n 0 -o out.csv", "-n: 0 is refused: it should be at least 1"),
    ("sample R -n 9 -o out", "out: a suffix is missing; use .npy, .csv, .tsv, .npz, .parquet"),
    ("sample R -n 9 -o out.xls", "out.xls: .xls is unknown; use .npy,"),
    ("sample R -n 9 -o folder", "folder: this is a folder; name a file"),
    ("sample R -n 9 -o pipe.csv", "pipe.csv: this is no regular file; name another"),
    ("sample R -n 9 -o points.csv/out.csv", "cannot write points.csv/out.csv: "),
    ("sample R -n 9 -o out.csv --seed -1", "--seed: -1 is refused: it should be from 0"),
    ("sample R -n 9 -o out.csv --batch-size -1", "--batch-size: -1 is refused"),
    ("score R three.csv", "R models 2 columns, three.csv has 3: x0, x1, x2; choose with --columns"),
    ("score R three.csv --columns x0,y", "three.csv: no column 'y'; it has 'x0', 'x1', 'x2'"),
    ("score R three.csv --label y", "three.csv: no column 'y'; it has 'x0', 'x1', 'x2'"),
    ("score R nan.csv", "nan.csv, line 3, column 'x1': nan is not finite; mend or drop the row"),
    ("score R empty.csv", "empty.csv: the file is empty"),
    ("score R folder", "folder: this is a folder; name a file"),
    ("score R points.csv --threshold-quantile 1", "--threshold-quantile: 1 is refused: it should"),
    ("score R ones.csv --label y", "ones.csv: column 'y' is 1 in every row; an AUROC needs rows"),
    ("compare nowhere", "nowhere: no such folder"),
    ("compare folder", "no run below folder: no folder has a result.json"),
    ("compare R -o out.txt", "out.txt: .txt is unknown; use .csv, .md"),
    ("compare R --figure out.gif", "out.gif: .gif is unknown; use .png"),
    ("compare R --metric kl", "--metric: no completed run has 'kl'; choose from inverse_error/"),
    ("animate R", "R: realnvp has no time to animate"),
    ("animate C --frames 1", "--frames: 1 is refused: it should be at least 2"),
    ("animate C --points 0", "--points: 0 is refused: it should be at least 1"),
    ("animate C -o out.avi", "out.avi: .avi is unknown; use .gif, .mp4"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(
    run: Run, folders: dict[str, Path], tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name, text in (
        ("points.csv", "x0,x1\n0,1\n"),
        ("three.csv", "x0,x1,x2\n0,1,2\n"),
        ("nan.csv", "x0,x1\n0,1\n0,nan\n"),
        ("empty.csv", ""),
        ("ones.csv", "x0,x1,y\n0,1,1\n0,2,1\n"),
    ):
        (tmp_path / name).write_text(text)
    for name, folder in (("R", folders["realnvp"]), ("C", folders["ffjord"])):
        (tmp_path / name).symlink_to(folder)
    before = sorted(tmp_path.rglob("*"))
    told = run(*line.split())
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"flowrun: {message}")
    assert len(told.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_defect_of_ours_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtrain.commands.open_run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("evaluate", "R")


# --- evaluate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_evaluation_gives_the_figures_that_the_run_recorded(
    run: Run, folders: dict[str, Path], model: str
) -> None:
    told = run("evaluate", folders[model], "--json", "-")
    assert told.returncode == 0
    report = json.loads(told.stdout)
    recorded = json.loads((folders[model] / "result.json").read_text())
    assert report["metrics"].keys() == recorded["metrics"].keys()
    for tag, value in recorded["metrics"].items():
        assert report["metrics"][tag] == pytest.approx(value, rel=1e-4, abs=1e-6), tag
    assert (report["model"], report["checkpoint"]) == (model, "best")
    assert report["step"] == recorded["best_step"]


def test_evaluation_prints_a_table_and_writes_json(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    told = run("evaluate", folders["realnvp"], "--checkpoint", "last", "--json", "out.json")
    metrics = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert "last weights, of step 20" in told.stdout
    for tag, value in metrics.items():
        assert f"{tag} " in told.stdout
        assert f" {value:.6g} " in told.stdout


def test_a_continuous_flow_is_evaluated_by_the_solver_that_is_named(
    run: Run, folders: dict[str, Path]
) -> None:
    def report(*options: str) -> dict[str, Any]:
        told = run("evaluate", folders["ffjord"], "--json", "-", *options)
        return dict(json.loads(told.stdout))

    own, tight = report(), report("--rtol", "1e-6", "--atol", "1e-6", "--dtype", "float64")
    changed = {"rtol": 1e-6, "atol": 1e-6, "dtype": "float64"}
    assert tight["solver"] == own["solver"] | changed
    coarse = report("--solver", "euler", "--step-size", "1")
    assert coarse["solver"]["name"] == "euler"
    own_nll, tight_nll, coarse_nll = (each["metrics"]["nll/test"] for each in (own, tight, coarse))
    assert 0 < abs(own_nll - tight_nll) < 1e-3 < abs(coarse_nll - tight_nll)


def test_the_user_s_points_have_an_nll_with_its_standard_error(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    opened = open_run(folders["realnvp"])
    x = opened.pools()["test"].x
    np.save(tmp_path / "points.npy", x.numpy())
    report = json.loads(
        run("evaluate", opened.folder, "--points", "points.npy", "--json", "-").stdout
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
    assert "follow the law" in run("evaluate", opened.folder, "--points", "points.npy").stdout


def test_a_single_point_has_no_standard_error(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "one.csv").write_text("c,b,a\n0,1,2\n")
    told = run(
        "evaluate", folders["realnvp"], "--points", "one.csv", "--columns", "a,1", "--json", "-"
    )
    figures = json.loads(told.stdout)["metrics"]
    assert figures.keys() == {"nll/points", "kl/points"}
    with torch.no_grad():
        log_q = flowtrain.load(folders["realnvp"]).log_prob(torch.tensor([[2.0, 1.0]]))
    assert figures["nll/points"] == pytest.approx(-log_q.item(), rel=1e-6)


def test_a_figure_that_is_not_finite_is_null_in_json(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "far.csv").write_text("1e30,1e30\n")
    told = run("evaluate", folders["realnvp"], "--points", "far.csv", "--json", "-")
    assert json.loads(told.stdout)["metrics"]["nll/points"] is None


# --- sample -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_samples_are_the_flow_s_own_to_the_bit_in_every_format(
    run: Run, folders: dict[str, Path], tmp_path: Path, model: str, suffix: str
) -> None:
    name = f"samples.{suffix}"
    told = run(
        "sample", folders[model], "-n", "25", "-o", name, "--seed", "3", "--batch-size", "10"
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    flow, generator = flowtrain.load(folders[model]), torch.Generator().manual_seed(3)
    expected = torch.cat([flow.sample(rows, generator) for rows in (10, 10, 5)])
    table = read_table(tmp_path / name, columns=None, header="auto")
    assert torch.equal(table.values.float(), expected)
    assert table.columns == ("x0", "x1")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_arrays_are_stored_in_the_flow_s_dtype(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    for suffix in ("npy", "parquet"):
        run("sample", folders["realnvp"], "-n", "7", "-o", f"s.{suffix}", "--batch-size", "3")
    assert np.load(tmp_path / "s.npy", mmap_mode="r").dtype == np.float32
    written = pq.ParquetFile(tmp_path / "s.parquet")
    assert written.num_row_groups == 3
    assert {str(field.type) for field in written.schema_arrow} == {"float"}


def test_the_same_seed_gives_the_same_bits(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run("sample", folders["realnvp"], "-n", "50", "-o", f"{name}.npy", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.npy").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_missing_pyarrow_is_told(
    run: Run, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    told = run("sample", folders["realnvp"], "-n", "7", "-o", "s.parquet")
    assert told.stderr == (
        "flowrun: writing Parquet needs pyarrow: pip install 'flowtrain[parquet]'\n"
    )
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_is_told_in_one_line_and_keeps_the_old_file(
    run: Run,
    folders: dict[str, Path],
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    (tmp_path / "s.npy").write_text("old")
    with full_disk(10_000):
        told = run("sample", folders["realnvp"], "-n", "100000", "-o", "s.npy")
    assert (told.returncode, told.stderr) == (1, "flowrun: cannot write s.npy: File too large\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_an_ended_command_leaves_no_half_written_file(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    many = str(10**9)
    process = launch("sample", folders["realnvp"], "-n", many, "-o", tmp_path / "s.npy")
    draft = tmp_path / "s.npy.tmp"
    deadline = time.monotonic() + 60
    while not draft.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert draft.exists()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 128 + signal.SIGTERM
    assert [*tmp_path.iterdir()] == []


def test_a_reader_that_has_seen_enough_is_no_mistake(folders: dict[str, Path]) -> None:
    with launch("sample", folders["realnvp"], "-n", "1000000", "-o", "-") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "x0,x1\n"
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_standard_output_is_told_in_one_line(folders: dict[str, Path]) -> None:
    with Path("/dev/full").open("w") as full:
        process = launch("sample", folders["realnvp"], "-n", "10", "-o", "-", stdout=full)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (
        1, "flowrun: standard output: No space left on device\n",
    )  # fmt: skip


# --- score --------------------------------------------------------------------------------------


@pytest.fixture
def points(folders: dict[str, Path], tmp_path: Path) -> torch.Tensor:
    """Write points.csv, 60 points of the law and 20 far from it, labelled; return the points."""
    law = open_run(folders["realnvp"]).law()
    assert law is not None
    normal = law.sample(60, torch.Generator().manual_seed(0))
    far = 30 + torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.cat([normal, far])
    lines = [f"{row[0]!r},{int(i >= 60)},{row[1]!r}" for i, row in enumerate(x.tolist())]
    (tmp_path / "points.csv").write_text("\n".join(["a,odd,b", *lines]))
    return x


def test_each_row_has_its_log_density(
    run: Run, folders: dict[str, Path], points: torch.Tensor, tmp_path: Path
) -> None:
    told = run("score", folders["realnvp"], "points.csv", "--columns", "a,b")
    header, *rows = told.stdout.splitlines()
    with torch.no_grad():
        expected = flowtrain.load(folders["realnvp"]).log_prob(points.float())
    assert header == "log_prob"
    assert torch.equal(torch.tensor([float(row) for row in rows]), expected)
    assert told.stderr == ""
    run("score", folders["realnvp"], "points.csv", "--columns", "0,2", "-o", "scores.npy")
    assert np.array_equal(np.load(tmp_path / "scores.npy")[:, 0], expected.numpy())


def test_rows_less_likely_than_the_validation_points_are_anomalies(
    run: Run, folders: dict[str, Path], points: torch.Tensor, tmp_path: Path
) -> None:
    told = run(
        "score", folders["realnvp"], "points.csv", "--label", "odd",
        "--threshold-quantile", "0.1", "-o", "scores.csv",
    )  # fmt: skip
    scores = read_table(tmp_path / "scores.csv", columns=None, header="auto")
    assert scores.columns == ("log_prob", "anomaly")
    log_q, anomaly = scores.values.T
    opened = open_run(folders["realnvp"])
    with torch.no_grad():
        own = opened.flow.log_prob(opened.pools()["validation"].x)
    limit = np.quantile(own.numpy(), 0.1, method="lower")
    assert torch.equal(anomaly.bool(), log_q < float(limit))
    assert anomaly[60:].all()
    assert f"{int(anomaly.sum())} of 80 rows" in told.stderr
    assert "AUROC of -log_prob: 1.0000, 20 anomalies of 80 rows" in told.stderr


def test_the_auroc_counts_a_point_of_no_density_as_the_oddest(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("a,b,y\n1e30,1e30,1\n0,1,0\n9,9,0\n8,8,1\n")
    told = run("score", folders["realnvp"], "p.csv", "--label", "y")
    assert math.isinf(float(told.stdout.splitlines()[1]))
    assert told.stderr.startswith("flowrun: AUROC of -log_prob: 0.7500")


# --- a user's table -----------------------------------------------------------------------------


def test_a_run_on_a_table_keeps_to_the_table_s_columns(
    run: Run, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    rows = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).tolist()
    lines = [f"{a},name {i},{b}" for i, (a, b) in enumerate(rows)]
    (tmp_path / "mine.csv").write_text("\n".join(["a,who,b", *lines]))
    data = {"name": "table", "path": "mine.csv", "columns": ["b", "a"], "header": "auto"}
    pools = {"name": "split", "validation": 0.2, "test": 0.2, "seed": 0}
    raw = tiny("trainer.max_steps=4", model="ffjord").model_dump()
    train(validate({**raw, "data": data, "pools": pools}), tmp_path / "r")

    assert run("sample", "r", "-n", "3", "-o", "-").stdout.startswith("b,a\n")
    assert len(run("score", "r", "mine.csv").stdout.splitlines()) == 61
    figures = json.loads(run("evaluate", "r", "--points", "mine.csv", "--json", "-").stdout)
    assert figures["metrics"].keys() == {"nll/points", "nll_error/points"}
    assert "nll/test" in run("evaluate", "r").stdout
    assert "no KL on table, whose law is not known" in run("compare", "r").stdout
    assert run("animate", "r").stderr == "flowrun: r: only a known law in the plane is animated\n"


def test_a_header_of_numbers_is_told_by_an_option(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "years.csv").write_text("2001,2002\n0,1\n")
    rows = [
        len(run("score", folders["realnvp"], "years.csv", "--header", header).stdout.splitlines())
        for header in ("auto", "true", "false")
    ]
    assert rows == [3, 2, 3]


# --- compare and animate ------------------------------------------------------------------------


def test_runs_are_compared_in_a_table_and_a_picture(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    home = folders["realnvp"].parent
    told = run("compare", home, "-o", "table.md", "--figure", "picture.png")
    assert told.returncode == 0
    assert told.stdout.split()[:2] == ["model", "data"]
    for folder in folders.values():
        kl = json.loads((folder / "result.json").read_text())["metrics"]["kl/test"]
        assert f" {kl:.4f} " in told.stdout
    assert (tmp_path / "table.md").read_text().startswith("| model | data |")
    with PIL.Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
    told = run(
        "compare", *folders.values(), "--group-by", "data", "--metric", "nll/val", "-o", "t.csv"
    )
    assert (tmp_path / "t.csv").read_text().startswith("data,nll/val,nll/val standard error,runs,")
    assert "a mean over runs that differ in " in told.stdout


def test_an_animation_is_a_gif_in_the_run_s_folder_or_an_mp4(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    import av

    told = run("animate", folders["ffjord"], "--frames", "2", "--points", "50")
    path = folders["ffjord"] / "figures" / "flow.gif"
    assert (told.returncode, told.stderr) == (0, f"flowrun: wrote {path}\n")
    with PIL.Image.open(path) as gif:
        assert getattr(gif, "n_frames", 1) == 2
        size = gif.size
    path.unlink()
    run("animate", folders["ffjord"], "--frames", "2", "--points", "50", "-o", "flow.mp4")
    with av.open(str(tmp_path / "flow.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 22  # it rests at its end
    assert frames[0].shape == (size[1] // 2 * 2, size[0] // 2 * 2, 3)
    assert frames[0].mean() > 100  # mostly white paper


def test_a_missing_pyav_is_told(
    run: Run, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    told = run("animate", folders["ffjord"], "-o", "flow.mp4")
    assert told.stderr == (
        "flowrun: MP4 needs PyAV: pip install 'flowtrain[mp4]', or write a .gif\n"
    )
    assert [*tmp_path.iterdir()] == []


# --- as a program -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["evaluate C --json -", "score C p.csv", "compare C R", "animate C --frames 2 -o a.gif"]
)
def test_every_command_works_as_a_program(
    folders: dict[str, Path], tmp_path: Path, line: str
) -> None:
    (tmp_path / "p.csv").write_text("0,1\n2,3\n")
    for name, folder in (("C", folders["ffjord"]), ("R", folders["realnvp"])):
        (tmp_path / name).symlink_to(folder)
    process = launch(*line.split(), cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert bool(out) or (tmp_path / "a.gif").is_file()
