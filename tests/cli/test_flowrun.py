"""The command `flowrun`, as a user types and mistypes it, on the folders of tiny runs."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowtrain import __version__
from flowtrain.batching import in_batches
from flowtrain.cli.messages import commands_of_flowrun
from flowtrain.config.schema import Config
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.latest import point_to
from flowtrain.runs.result import write_failed_start
from flowtrain.training.trainer import train

Flowrun = Callable[..., subprocess.CompletedProcess[str]]
Launch = Callable[..., subprocess.Popen[str]]


HEAVY = {
    "torch", "matplotlib", "hydra", "omegaconf", "pydantic", "sklearn", "scipy", "numpy", "rich",
    "yaml",
}  # fmt: skip
COMMANDS = commands_of_flowrun()

# --- help and mistakes --------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_command(flowrun: Flowrun, arguments: list[str]) -> None:
    told = flowrun(*arguments)
    assert (told.returncode, told.stderr) == (0, "")
    assert {*COMMANDS} <= {line.split()[0] for line in told.stdout.splitlines() if line}


def test_every_command_has_its_help(flowrun: Flowrun) -> None:
    for name in COMMANDS:
        assert f"usage: flowrun {name} " in flowrun(name, "--help").stdout


def test_the_version_is_ours(flowrun: Flowrun) -> None:
    assert flowrun("--version").stdout == f"flowrun {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["sample", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys, atexit; heavy = {HEAVY};"
        "atexit.register(lambda: print('heavy:', *sorted(heavy & {*sys.modules})));"
        f"sys.argv = ['flowrun', *{arguments}];"
        "from flowtrain.cli.flowrun import main; main()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "heavy:"


# A usage error exits with 2 and points to the command's help.
USAGE = [
    (
        "sampel",
        "argument COMMAND: invalid choice: 'sampel', did you mean 'sample'; see ",
        "flowrun",
    ),
    ("x", "argument COMMAND: invalid choice: 'x' (choose from ", "flowrun"),
    ("--frames 3", "argument COMMAND: invalid choice: '3'", "flowrun"),
    ("sample R", "the following arguments are required: -n, -o/--output", "flowrun sample"),
    ("list -n -1", "argument -n: -1 is refused: it should be at least 1", "flowrun list"),
    (
        f"sample R -n 9 -o - --seed {2**63}",
        f"argument --seed: {2**63} is refused: it should be below 2**63",
        "flowrun sample",
    ),
    ("score", "the following arguments are required: RUN, FILE", "flowrun score"),
    ("compare", "the following arguments are required: RUN_OR_SWEEP", "flowrun compare"),
    ("sample R -n 1e3 -o -", "argument -n: 1e3 is refused: write 1000", "flowrun sample"),
    (
        "sample R -n 9 -o - --seed 1e3",
        "argument --seed: 1e3 is refused: write 1000",
        "flowrun sample",
    ),
    ("sample R -n x -o -", "argument -n: invalid whole number value: 'x'", "flowrun sample"),
    ("sample R -n 0 -o -", "argument -n: 0 is refused: it should be at least 1", "flowrun sample"),
    (
        "sample R -n 9 -o - --sed 1",
        "unrecognized arguments: --sed 1, did you mean --seed;",
        "flowrun sample",
    ),
    (
        "sample R -n 9 -o - --seed -1",
        "argument --seed: -1 is refused: it should be at least 0",
        "flowrun sample",
    ),
    (
        "sample R -n 9 -o - --batch-size -1",
        "argument --batch-size: -1 is refused: it should be at least 1",
        "flowrun sample",
    ),
    (
        "evaluate R --batch-size 0",
        "argument --batch-size: 0 is refused: it should be at least 1",
        "flowrun evaluate",
    ),
    ("evaluate R --rtol x", "argument --rtol: invalid float value: 'x'", "flowrun evaluate"),
    (
        "evaluate R --checkpoint first",
        "argument --checkpoint: invalid choice: 'first'",
        "flowrun evaluate",
    ),
    (
        "score R p.csv --threshold-quantile 1",
        "argument --threshold-quantile: 1 is refused: it should be between 0 and 1",
        "flowrun score",
    ),
    ("sample R -n 1,000 -o x.csv", "argument -n: 1,000 is refused: write 1000", "flowrun sample"),
    (
        "sample R -n 1,5 -o x.csv",
        "argument -n: invalid whole number value: '1,5'",
        "flowrun sample",
    ),
    (
        "animate R --frames 1",
        "argument --frames: 1 is refused: it should be at least 2",
        "flowrun animate",
    ),
    (
        "animate R --points 0",
        "argument --points: 0 is refused: it should be at least 1",
        "flowrun animate",
    ),
]


@pytest.mark.parametrize(("line", "message", "program"), USAGE, ids=[line for line, *_ in USAGE])
def test_a_mistyped_option_is_told_in_one_line_that_names_the_help(
    flowrun: Flowrun, tmp_path: Path, line: str, message: str, program: str
) -> None:
    told = flowrun(*line.split())
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(f"flowrun: {message}")
    assert told.stderr.endswith(f"; see {program} --help\n")
    assert len(told.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# Of a run R of a discrete flow, and a run C of a continuous one.
MISTAKES = [
    ("evaluate nowhere", "nowhere: no such folder"),
    ("evaluate points.csv", "points.csv: a file, not a run folder"),
    ("evaluate .", "there is no checkpoint checkpoints/best.pt: . is no run folder"),
    ("evaluate R --device cuda:77", "--device: cuda:77 is not on this machine; it has cpu"),
    ("evaluate R --solver dopri5", "R: realnvp solves no ODE; a solver would have no effect"),
    ("evaluate R --rtol 1e-7", "R: realnvp solves no ODE; a solver would have no effect"),
    ("evaluate C --solver magic", "--solver: 'magic' is unknown; choose from adaptive_heun,"),
    ("evaluate C --solver rk", "--solver: 'rk' is unknown; choose from adaptive_heun,"),
    ("evaluate C --solver rk4 --rtol 1", "--rtol: rk4 has no such setting; it has --step-size,"),
    ("evaluate C --rtol -1", "--rtol: -1.0 is refused: it should be greater than"),
    ("plot R --what curves --grid 8", "--grid: curves are of the whole training; leave it out"),
    ("plot R --what images", "--what images is drawn of scikit-learn's digits, and R is of "),
    ("status R --every 3", "--every: it is for --watch; leave it out, or add that"),
    ("__complete", "__complete is for shells: see flowrun completion --help"),
    ("evaluate R --columns x0", "--columns has no effect without --points"),
    ("evaluate R --header true", "--header has no effect without --points"),
    ("evaluate R --missing drop", "--missing has no effect without --points"),
    ("evaluate R --json folder", "folder: this is a folder; name a file"),
    ("evaluate R --json out.txt", "out.txt: .txt is unknown; use .json"),
    ("evaluate R --points three.csv", "R models 2 columns, three.csv has 3: x0, x1, x2; choose"),
    ("evaluate R --points nowhere.csv", "nowhere.csv: no such file"),
    ("sample R -n 9 -o out", "out: a suffix is missing; use .npy, .csv, .tsv, .npz, .parquet"),
    ("sample R -n 9 -o out.xls", "out.xls: .xls is unknown; use .npy,"),
    ("sample R -n 9 -o folder", "folder: this is a folder; name a file"),
    ("sample R -n 9 -o pipe.csv", "pipe.csv: this is no regular file; name another"),
    ("sample R -n 9 -o points.csv/out.csv", "cannot write points.csv/out.csv: "),
    ("score R three.csv", "R models 2 columns, three.csv has 3: x0, x1, x2; choose with --columns"),
    ("score R three.csv --columns x0,y", "three.csv: no column 'y'; it has 'x0', 'x1', 'x2'"),
    ("score R three.csv --label y", "three.csv: no column 'y'; it has 'x0', 'x1', 'x2'"),
    ("score R nan.csv", "nan.csv, line 3, column 'x1': the value is missing; fill it or drop"),
    ("score R empty.csv", "empty.csv: the file is empty"),
    ("score R folder", "folder: this is a folder; name a file"),
    ("score R ones.csv --label y", "ones.csv: column 'y' is 1 in every row; an AUROC needs rows"),
    ("compare nowhere", "nowhere: no such folder"),
    ("compare folder", "no run below folder: no folder has a result.json"),
    ("compare R -o out.txt", "out.txt: .txt is unknown; use .csv, .md"),
    ("compare R --figure out.gif", "out.gif: .gif is unknown; use .png"),
    ("compare R --metric kl", "--metric: no completed run has 'kl'; choose from ess/"),
    ("animate R", "R: realnvp has no time to animate"),
    ("animate C -o out.avi", "out.avi: .avi is unknown; use .gif, .mp4"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, line: str, message: str
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
    told = flowrun(*line.split())
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"flowrun: {message}")
    assert len(told.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_defect_of_ours_is_not_hidden(flowrun: Flowrun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtrain.runs.load.open_run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flowrun("evaluate", "R")


def test_what_a_command_sets_ends_with_it(flowrun: Flowrun, folders: dict[str, Path]) -> None:
    assert flowrun("evaluate", folders["realnvp"]).returncode == 0
    threads = in_batches(lambda _: torch.tensor([threading.get_ident()]), torch.zeros(2), 1)
    assert threads.tolist() == 2 * [threading.get_ident()]


# --- a user's table -----------------------------------------------------------------------------


def test_a_newest_run_that_failed_at_its_start_says_why(flowrun: Flowrun, tmp_path: Path) -> None:
    (run := tmp_path / "outputs" / "day" / "run").mkdir(parents=True)
    reason = "points.csv: no such file"
    write_failed_start(RunFolder(run), reason, model="affine", data="table", seed=0)
    point_to(run, tmp_path / "outputs")
    told = flowrun("evaluate", "latest")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == f"flowrun: outputs/day/run: this run failed at its start: {reason}\n"


def test_a_run_on_a_table_keeps_to_the_table_s_columns(
    flowrun: Flowrun, tiny_on_table: Callable[..., Config], tmp_path: Path
) -> None:
    rows = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).tolist()
    lines = [f"{a},name {i},{b}" for i, (a, b) in enumerate(rows)]
    (tmp_path / "mine.csv").write_text("\n".join(["a,who,b", *lines]))
    config = tiny_on_table("mine.csv", "trainer.max_steps=4", columns=["b", "a"], model="ffjord")
    train(config, tmp_path / "r")

    assert flowrun("sample", "r", "-n", "3", "-o", "-").stdout.startswith("b,a\n")
    assert len(flowrun("score", "r", "mine.csv").stdout.splitlines()) == 61
    figures = json.loads(flowrun("evaluate", "r", "--points", "mine.csv", "--json", "-").stdout)
    assert figures["metrics"].keys() == {"nll/points", "nll_error/points"}
    assert "NLL test, error " in flowrun("evaluate", "r").stdout
    assert "no KL on mine, whose density is not known" in flowrun("compare", "r").stdout
    small = ("--frames", "2", "--lines", "120")
    assert "flowrun: wrote r/figures/flow.gif" in flowrun("animate", "r", *small).stderr
    assert "flowrun: wrote r/figures/marginals.png" in flowrun("plot", "r", "--dpi", "20").stderr


def test_a_header_of_numbers_is_told_by_an_option(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "years.csv").write_text("2001,2002\n0,1\n")
    told = [
        flowrun("score", folders["realnvp"], "years.csv", "--header", header).stdout
        for header in ("auto", "true", "false")
    ]
    assert [len(text.splitlines()) for text in told] == [3, 2, 3]


# --- as a program -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["evaluate C --json -", "score C p.csv", "compare C R", "animate C --frames 2 -o a.gif"]
)
def test_every_command_works_as_a_program(
    launch_flowrun: Launch, folders: dict[str, Path], tmp_path: Path, line: str
) -> None:
    (tmp_path / "p.csv").write_text("0,1\n2,3\n")
    for name, folder in (("C", folders["ffjord"]), ("R", folders["realnvp"])):
        (tmp_path / name).symlink_to(folder)
    process = launch_flowrun(*line.split(), cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert bool(out) or (tmp_path / "a.gif").is_file()
