"""The command `flowtrain`, as a user types and mistypes it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from flowtrain import __version__
from flowtrain.runs.lock import locked
from flowtrain.runs.standing import standing
from flowtrain.training import trainer
from flowtrain.training.outcome import Result
from flowtrain.training.run import Run
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker

Flowtrain = Callable[..., subprocess.CompletedProcess[str]]
Launch = Callable[..., subprocess.Popen[str]]


def run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob(".hydra"))


# --- help, completion, speed --------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["model=realnpv"], ["optimizer.lr=-1"]])
def test_help_and_mistakes_are_told_without_heavy_imports(arguments: list[str]) -> None:
    code = (
        "import sys, atexit; heavy = {'torch', 'matplotlib', 'sklearn', 'scipy', 'numpy'};"
        "atexit.register(lambda: print('heavy:', *sorted(heavy & {*sys.modules})));"
        f"sys.argv = ['flowtrain', *{arguments}];"
        "from flowtrain.cli.flowtrain import main; main()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == (0 if arguments == ["--help"] else 1)
    assert told.stdout.splitlines()[-1] == "heavy:"


def test_the_first_step_waits_for_no_heavy_import(
    tmp_path: Path, tiny_overrides: list[str]
) -> None:
    code = (
        "import os, sys; from flowtrain.cli import flowtrain;"
        "from flowtrain.training import trainer;"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy', 'matplotlib', 'sklearn', 'scipy'};"
        "trainer.train_step = lambda *_: (print(*heavy & {*sys.modules}, flush=True), os._exit(3));"
        f"sys.argv = ['flowtrain', *{tiny_overrides}, 'trainer.figures=true'];"
        "flowtrain.main()"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 3
    assert told.stdout.splitlines()[-1] == ""


def test_the_version_is_ours(flowtrain: Flowtrain) -> None:
    assert flowtrain("--version").stdout == f"flowtrain {__version__}\n"


def test_the_package_is_the_command(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "flowtrain", "--version"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout, told.stderr) == (0, f"flowtrain {__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flowtrain trainer=d", "trainer=debug trainer=default"),
        ("flowtrain optimizer.l", "optimizer.lr="),
    ],
)
def test_tab_completes_options_and_keys(
    flowtrain: Flowtrain, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert flowtrain("-sc", "query=bash").stdout.strip() == expected


def test_completion_can_be_installed(flowtrain: Flowtrain) -> None:
    assert "complete -o nospace -o default -F hydra_bash_completion flowtrain" in (
        flowtrain("-sc", "install=bash").stdout
    )


# --- mistakes -----------------------------------------------------------------------------------

MISTAKES = [
    (["model=realnpv"], "model: no option 'realnpv'; did you mean realnvp?"),
    (["data=sun"], "data: no option 'sun'; choose from banana, checkerboard,"),
    (["model="], "model: no option ''; choose from affine, ffjord, glow, iaf, maf, maf_spline,"),
    (["data=3"], "Config group override must be a string"),
    (["optimzer=adam"], "optimzer: no such key; did you mean optimizer"),
    (["optimizer.rl=1"], "optimizer.rl: no such key; did you mean optimizer.lr"),
    (["model=ffjord", "model.widht=8"], "model.widht: no such key; did you mean model.width"),
    (["foo=1"], "foo: no such key; `flowtrain --cfg job` shows every key"),
    (["+foo=1"], "foo: unknown key"),
    (["data"], "data: cannot be read as key=value; name an option: data=banana\n"),
    (["model", "realnvp"], "model: cannot be read as key=value; type model=realnvp\n"),
    (["help"], "help: cannot be read as key=value; `flowtrain --help` has examples\n"),
    (["evaluate", "x"], "evaluate: cannot be read as key=value; it is a command of flowrun: flo"),
    (["/"], "/: cannot be read as key=value; to go on with a run, type resume=/\n"),
    (["data=x/a.csv"], "data: no option 'x/a.csv'; for a file type data=table data.path=x/a.csv\n"),
    (["seed", "=", "1"], "seed: cannot be read as key=value; leave out the spaces around =\n"),
    (["data=table", "data.path=.", "data.columns=a"], "data.columns: 'a' is no list; write da"),
    (["model.hidden=["], "model.hidden=[: cannot be read as key=value"),
    (["~data"], "data: missing from the config\n"),
    (
        ["data=moons,circles"],
        "data: moons,circles is several values; -m makes a run of each",
    ),
    (
        ["data.target=a=b,c"],
        "data.target=a=b,c: cannot be read as key=value; quote a value that has a ",
    ),
    (
        ["data.target=größe.py:P"],
        "data.target=größe.py:P: cannot be read as key=value; quote a value with other than ",
    ),
    (
        ["data.columns=[x0,", "x1]"],
        "data.columns=[x0,: cannot be read as key=value; a list has no spaces in it, or quotes ",
    ),
    (["+model=spline"], "+model=spline: it has a value already; type model=spline\n"),
    (["++model=spline"], "++model=spline: it has a value already; type model=spline\n"),
    (["+trainer.clip=1"], "+trainer.clip=1: it has a value already; type trainer.clip=1\n"),
    (["launcher=basic"], "launcher=basic: it is for many runs: add -m, or leave it out\n"),
    (["sweep=optuna", "hydra.sweeper.n_trials=x"], "sweep=optuna: it is for many runs: add -m"),
    (["hydra.job.num=x"], "hydra.job.num=x: Value 'x' of type 'str' could not be converted to I"),
    (["hydra.run.dir="], "hydra.run.dir: it is empty; name a folder, . for this one\n"),
    (
        ["-m", "resume=a,b"],
        "resume: one run goes on at a time, without -m; a sweep goes on by "
        "flowtrain -m resume_sweep=FOLDER\n",
    ),
    (["-m", "hydra.run.dir=x"], "hydra.run.dir: a sweep has no such folder; use hydra.sweep.dir\n"),
    (["-m", "hydra.sweep.dir="], "hydra.sweep.dir: it is empty; name a folder, . for this one\n"),
    (["-m", "--cfg", "job"], "-m and --cfg: one at a time\n"),
    (["--resolve"], "--resolve: it is for --cfg job\n"),
    (["--experimental-rerun", "x"], "--experimental-rerun: a run goes on by resume=FOLDER\n"),
    (["--multi", "seed=0,1"], "unrecognized arguments: --multi; `flowtrain --help` shows"),
    (["model=null"], "model=null: null is no option; for the default leave model out\n"),
    (["data=[moons]"], "data=[moons]: a list is no option; name one, or several by commas behind"),
    (["hydra.job.chdir=True"], "hydra.job.chdir: a run stays where it was started; leave it out"),
    (["trainer.max_steps=1,000"], "trainer.max_steps: 1,000 is several values; for one write 1000"),
    ([""], ": cannot be read as key=value; `flowtrain --help` has examples\n"),
    (["hydra.sweep.subdir=x"], "hydra.sweep.subdir: a single run has no such folder; use"),
    (["hydra.sweep.dir=x"], "hydra.sweep.dir: a single run has no such folder; use hydra.run.dir,"),
    (["optimizer.lr=0,01"], "optimizer.lr: 0,01 is two values; a decimal has a point: 0.01\n"),
    (["realnvp"], "realnvp: cannot be read as key=value; did you mean model=realnvp?"),
    (["--nope"], "unrecognized arguments: --nope; `flowtrain --help` shows what can be typed"),
    (["optimizer.lr=-1"], "optimizer.lr: -1 is refused: it should be greater than 0"),
    (["solver=dopri5"], "solver: realnvp solves no ODE, dopri5 would have no effect"),
    (["model.width=8"], "model.width: no key of the chosen model, but of ffjord\n"),
    (["solver.step_size=1"], "solver.step_size: no key of the chosen solver, but of euler,"),
    (["data.arguments.side=2"], "data.arguments: unknown key\n"),
    (["data=custom"], "data.target: missing; it has no default"),
    (["data=custom", "data.target=x"], "data.target: 'x' is refused: it should be module:Name\n"),
    (["trust_code=true"], "trust_code: only resume runs code that a folder names; leave it false"),
    (["resume=nowhere"], "resume: nowhere: no such folder\n"),
    (["init_from=nowhere"], "init_from: nowhere: no such folder\n"),
    (["--config-dir", "nowhere"], "Additional config directory"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_told_in_one_message_and_leaves_nothing(
    flowtrain: Flowtrain, tmp_path: Path, arguments: list[str], message: str
) -> None:
    told = flowtrain(*arguments)
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"flowtrain: {message}")
    assert "hydra.cc" not in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_several_mistakes_are_told_at_once(flowtrain: Flowtrain, tmp_path: Path) -> None:
    told = flowtrain("optimizer.lr=0", "model.hidden=no", "trainer.ema=1")
    lines = told.stderr.removeprefix("flowtrain: ").splitlines()
    keys = {line.split(":")[0] for line in lines}
    assert keys == {"optimizer.lr", "model.hidden", "trainer.ema"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trainer.device=cuda:77"], "trainer.device: cuda:77 is not on this machine; it has cpu"),
        (["data.weights=[1]"], "data: means must have shape (1, 2), one per weight, got (3, 2)\n"),
        (
            ["model=ffjord", "model.probes=2"],
            "model: probes and noise belong to the estimated trace",
        ),
    ],
)
def test_a_mistake_that_only_the_trainer_sees_is_told_in_one_message(
    flowtrain: Flowtrain, tiny_overrides: list[str], arguments: list[str], message: str
) -> None:
    others = [each for each in tiny_overrides if not each.startswith(("model", "trainer.device"))]
    told = flowtrain(*others, *arguments)
    assert told.returncode == 1
    assert told.stderr.startswith(f"flowtrain: {message}")
    assert len(told.stderr.splitlines()) == 1


def test_a_file_in_the_way_of_the_folder_is_named(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    (tmp_path / "outputs").write_text("in the way")
    told = flowtrain(*tiny_overrides)
    assert told.returncode == 1
    assert told.stderr.startswith("flowtrain: outputs/")
    assert told.stderr.endswith(": Not a directory\n")


@pytest.mark.parametrize("limit", [1_000, 12_000])
def test_a_full_disk_is_told_in_one_message(
    flowtrain: Flowtrain,
    tiny_overrides: list[str],
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
    limit: int,
) -> None:
    with full_disk(limit):
        told = flowtrain(*tiny_overrides, "hydra.run.dir=run", "model.hidden=256")
    assert told.returncode == 1
    assert told.stderr.startswith("flowtrain: ")
    assert told.stderr.endswith("File too large\n")
    assert len(told.stderr.splitlines()) == 1


def test_nan_ends_the_run_with_advice_and_keeps_the_checkpoint(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    told = flowtrain(*tiny_overrides, "optimizer.lr=1e30", "hydra.run.dir=run")
    assert told.returncode == 1
    assert "steps in a row failed" in told.stderr
    assert "try a lower optimizer.lr" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
    assert "steps in a row failed" in (tmp_path / "run" / "flowtrain.log").read_text()


def test_a_defect_of_ours_is_not_hidden(
    flowtrain: Flowtrain, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "train", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flowtrain(*tiny_overrides)


def test_ctrl_c_before_the_first_step_gives_no_traceback(
    flowtrain: Flowtrain, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", interrupted)
    told = flowtrain(*tiny_overrides)
    assert (told.returncode, told.stderr) == (130, "flowtrain: interrupted\n")


# --- a run --------------------------------------------------------------------------------------


def test_a_run_leaves_a_folder_that_explains_itself(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    told = flowtrain(*tiny_overrides, "seed=5")
    assert (told.returncode, told.stderr) == (0, "")
    (folder,) = run_folders(tmp_path)
    assert folder.parts[-3] == "outputs"
    assert folder.name.endswith("-realnvp-gaussian_mixture")
    (events,) = (path.name for path in folder.iterdir() if "tfevents" in path.name)
    assert {path.name for path in folder.iterdir()} == {
        ".hydra", "flowtrain.log", "metrics.jsonl", "result.json", "checkpoints", events,
    }  # fmt: skip
    recorded = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert (recorded["seed"], recorded["data"]["name"]) == (5, "gaussian_mixture")
    logged = (folder / "flowtrain.log").read_text()
    for line in told.stdout.splitlines():
        assert line in logged
    assert f"tensorboard --logdir {folder.relative_to(tmp_path)}" in told.stdout
    assert (tmp_path / "latest").resolve() == folder
    command = json.loads((folder / "result.json").read_text())["environment"]["command"]
    assert command == " ".join(["flowtrain", *tiny_overrides, "seed=5"])


def test_two_runs_at_once_do_not_share_a_folder(
    launch: Launch, tiny_overrides: list[str], tmp_path: Path
) -> None:
    processes = [launch(*tiny_overrides, "trainer.max_steps=1") for _ in range(2)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0]
    folders = run_folders(tmp_path)
    assert len(folders) == 2
    assert all(len([*folder.glob("*tfevents*")]) == 1 for folder in folders)


def test_a_data_set_of_one_s_own_is_found_by_config_dir(
    flowtrain: Flowtrain,
    tiny_overrides: list[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    path = tmp_path / "mine" / "data" / "pair.yaml"
    density = {
        "name": "gaussian_mixture", "means": [[0.0, 1.0], [2.0, 0.0]], "weights": [1.0, 1.0],
        "covariances": [[[1.0, 0.0], [0.0, 1.0]]] * 2,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(density))
    asked = ["--config-dir", "mine", *tiny_overrides, "data=pair", "hydra.run.dir=run"]
    assert flowtrain(*asked).returncode == 0
    recorded = yaml.safe_load((tmp_path / "run" / ".hydra" / "config.yaml").read_text())
    assert recorded["data"] == density

    path.write_text(yaml.safe_dump({**density, "wieghts": [1.0]}))
    assert flowtrain(*asked).stderr == "flowtrain: data.wieghts: unknown key\n"
    path.write_text("name: [gaussian_mixture\nmeans: 3\n")
    told = flowtrain(*asked)
    assert told.returncode == 1
    assert "pair.yaml" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_run_goes_on_where_its_table_has_moved_to(flowtrain: Flowtrain, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{row % 7},{row}\n" for row in range(60)))
    few = ("trainer.figures=false", "trainer.device=cpu", "trainer.max_steps=2")
    asked = ("data=table", "data.path=a.csv", "model=affine", *few, "hydra.run.dir=run")
    assert flowtrain(*asked).returncode == 0
    (tmp_path / "a.csv").rename(tmp_path / "b, moved.csv")
    told = flowtrain("resume=run", "trainer.max_steps=4", "data.path=b, moved.csv")
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["step"] == 4


def test_a_second_run_in_the_same_folder_is_refused_and_changes_nothing(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [*tiny_overrides, "hydra.run.dir=run"]
    with locked(run):
        told = flowtrain(*command)
        assert told.returncode == 1
        named = f"process {os.getpid()} on {socket.gethostname()}"
        assert told.stderr == f"flowtrain: run: {named} is at work there\n"
        assert {path.name for path in run.iterdir()} == {".lock", "flowtrain.log"}
    assert flowtrain(*command).returncode == 0
    assert not (run / ".lock").exists()


def test_a_run_is_at_work_before_torch_is_there(
    flowtrain: Flowtrain,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def look() -> None:
        seen.append(standing(tmp_path / "run").state)
        raise KeyboardInterrupt

    monkeypatch.setattr("flowtrain.cli.launchers.deal_gpu", look)
    told = flowtrain(*tiny_overrides, "hydra.run.dir=run")
    assert (told.returncode, told.stderr) == (130, "flowtrain: interrupted\n")
    assert seen == ["running"]
    assert standing(tmp_path / "run").state == "never began"
    told = flowtrain("resume=run")
    assert "the run never began; start it again" in told.stderr


def test_submitit_s_handler_requeues_what_is_saved(
    flowtrain: Flowtrain,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    def requeue(number: int, frame: object) -> None:
        told.append(json.loads((tmp_path / "run" / "result.json").read_text())["status"])
        sys.exit(-1)

    step = train_step

    def struck(run: Run, tracker: Tracker) -> None:
        step(run, tracker)
        if run.progress.step == 7:
            signal.raise_signal(signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        monkeypatch.setattr(trainer, "train_step", struck)
        assert flowtrain(*tiny_overrides, "hydra.run.dir=run").returncode == -1
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert told == ["interrupted"]
    again = flowtrain(*tiny_overrides, "hydra.run.dir=run")
    assert (again.returncode, again.stderr) == (0, "")
    assert "resuming at step 7" in again.stdout


# --- a sweep ------------------------------------------------------------------------------------


def test_a_job_whose_seed_is_wrong_is_told_as_failed(
    flowtrain: Flowtrain, tiny_overrides: list[str]
) -> None:
    told = flowtrain("-m", *tiny_overrides, "trainer.max_steps=1", "seed=0..3,1")
    assert "seed: '0..3' is refused: it should be a valid integer" in told.stderr
    assert "1 of 2 jobs did not complete: seed=0..3 (failed)" in told.stderr


def test_in_a_sweep_the_others_finish_when_a_job_fails(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    told = flowtrain("-m", *tiny_overrides, "optimizer.lr=-1,1e30,1e-3", "seed=0")
    assert told.returncode == 1
    folders = run_folders(tmp_path)
    values = ("-1", "1e+30", "0.001")
    assert {folder.name for folder in folders} == {f"optimizer.lr={value}" for value in values}
    folders = [folders[0].with_name(f"optimizer.lr={value}") for value in values]
    logs = [(folder / "flowtrain.log").read_text() for folder in folders]
    assert "ERROR optimizer.lr: -1 is refused" in logs[0]
    assert "steps in a row failed" in logs[1]
    assert all("Traceback (most recent call last)" in log for log in logs[:2])
    assert told.stderr.count("flowtrain: this job failed: ") == 2
    result = json.loads((folders[2] / "result.json").read_text())
    assert result["status"] == "completed"
    assert f"Succeeded with return value: {result['metrics']['kl/val']}" in logs[2]
    table = (folders[0].parent / "compare.md").read_text()
    assert f"{result['metrics']['kl/test']:.4f}" in table
    assert table.count(": failed: ") == 2
    assert ": failed: optimizer.lr: -1 is refused" in table  # before it was a run
    assert [f"job {number} of 3" in told.stdout for number in range(5)] == [
        False, False, True, True, False,  # the first was refused before it had a word to say
    ]  # fmt: skip
    assert (tmp_path / "latest").resolve() == folders[0].parent
    assert "kl/test" in told.stdout.partition("run folder")[2]  # the table, after the last job
    assert told.stdout.endswith(
        f"\ntensorboard --logdir {folders[0].parent.relative_to(tmp_path)}\n"
        "its curves, not smoothed: http://localhost:6006/?smoothing=0\n"
    )
    assert (folders[0].parent / "compare.png").exists()


def test_a_job_can_be_resumed_by_the_name_of_its_folder(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    flowtrain("-m", *tiny_overrides, "seed=0,1", "optimizer.lr=0.01,0.02")
    folder = run_folders(tmp_path)[1]
    assert folder.name == "seed=0,optimizer.lr=0.02"
    told = flowtrain(f"resume={folder}", "trainer.max_steps=25")
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads((folder / "result.json").read_text())["step"] == 25


def test_the_folder_of_a_job_may_have_a_long_name(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    components = 20
    many = {"means": "[0.0,1.0]", "weights": "1.0", "covariances": "[[1.0,0.0],[0.0,1.0]]"}
    density = [f"data.{key}=[{','.join([value] * components)}]" for key, value in many.items()]
    assert flowtrain("-m", *tiny_overrides, *density, "seed=0,1").returncode == 0
    assert len(run_folders(tmp_path)) == 2


def test_ctrl_c_ends_the_whole_sweep(
    flowtrain: Flowtrain,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = Result("interrupted", 3, {"nll/val": 1.0}, signal=2)
    monkeypatch.setattr(trainer, "train", lambda *_, **__: stopped)
    assert flowtrain("-m", *tiny_overrides, "seed=0,1,2").returncode == 130
    assert len(run_folders(tmp_path)) == 1
