"""TAB completion: what is offered, how fast, and in a real bash, fish and zsh."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowtrain.cli.candidates import candidates, escaped, split
from flowtrain.cli.completion import SCRIPTS
from flowtrain.cli.flowrun import COMMANDS, execute
from flowtrain.cli.keys import INNER, options_of
from flowtrain.config import CONF

GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()} - {*INNER}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a run, a sweep, a table and a name that is hard to type."""
    monkeypatch.chdir(tmp_path)
    for run in ("outputs/day/one", "outputs/sweep/model=spline,seed=0"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "result.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p.csv").touch()
    (tmp_path / "odd name").mkdir()
    return tmp_path


def test_every_group_and_each_of_its_options_is_offered() -> None:
    offered = {*candidates(["flowtrain", ""])}
    assert {f"{group}=" for group in GROUPS} <= offered
    assert {"seed=", "optimizer.", "solver@evaluation.solver="} <= offered
    assert not {"experiment_on=", "model_on=", "model_on.", "defaults=", "hydra="} & offered
    for group in GROUPS:
        assert candidates(["flowtrain", f"{group}="]) == [
            f"{group}={option} " for option in options_of(group)
        ]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("flowtrain model=re", ["model=realnvp "]),
        ("flowtrain solver@evaluation.solver=dopri5_", ["solver@evaluation.solver=dopri5_tight "]),
        ("flowtrain optimizer.l", ["optimizer.lr="]),
        ("flowtrain model=ffjord model.wid", ["model.width="]),
        ("flowtrain model=realnvp model.wid", []),
        ("flowtrain trainer.figures=", ["trainer.figures=false ", "trainer.figures=true "]),
        ("flowtrain -m launcher=basic,s", ["launcher=basic,slurm"]),
        ("flowtrain launcher=basic,s", []),
        ("flowtrain resume=outputs/day/", ["resume=outputs/day/one "]),
        ("flowtrain resume=d", ["resume=data/"]),
        ("flowtrain objective.teacher=outputs/day/", ["objective.teacher=outputs/day/one "]),
        ("flowtrain data.path=data/", ["data.path=data/p.csv "]),
        ("flowtrain --cfg ", ["all ", "hydra ", "job "]),
        ("flowtrain --config-dir d", ["data/"]),
        ("flowtrain -m resume_s", ["resume_sweep="]),
        ("flowtrain -m hydra.", ["hydra.sweep.dir="]),
        ("flowtrain hydra.", ["hydra.run.dir="]),
        ("flowrun eva", ["evaluate "]),
        ("flowrun evaluate outputs/day/", ["outputs/day/one "]),
        ("flowrun evaluate outputs/day/one --checkpoint ", ["best ", "last "]),
        ("flowrun evaluate outputs/day/one --che", ["--checkpoint "]),
        ("flowrun score outputs/day/one data/", ["data/p.csv "]),
        ("flowrun score --checkpoint last outputs/day/one da", ["data/"]),
        ("flowrun score outputs/day/one -o data/", ["data/p.csv "]),
        ("flowrun compare outputs/day/one outputs/s", ["outputs/sweep/"]),
        ("flowrun completion ", ["bash ", "fish ", "zsh "]),
        ("flowrun nonsense ", []),
        ("flowrun evaluate nowhere/", []),
    ],
)
def test_what_may_come_next(line: str, offered: list[str]) -> None:
    assert candidates(split(line)[0]) == offered


def test_every_command_and_every_flag_of_it_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    names = [module.__name__.rpartition(".")[2] for module in COMMANDS]
    assert candidates(["flowrun", ""]) == [f"{name} " for name in sorted(names)]
    for name in names:
        with pytest.raises(SystemExit):
            execute([name, "--help"])
        told = capsys.readouterr().out
        flags = candidates(["flowrun", name, "--"])
        assert flags
        assert all(flag.strip() in told for flag in flags)


@pytest.mark.parametrize("name", ["a b", "a'b", "$x", "a&b", "(x)", "a\\b", "model=spline,seed=0"])
def test_what_is_offered_can_be_typed(name: str) -> None:
    typed = escaped(f"{name} ", "")
    assert split(f"flowrun {typed}x")[0] == ["flowrun", name, "x"]


def test_an_answer_imports_nothing_heavy() -> None:
    code = (
        "import sys; from flowtrain.cli.flowrun import execute;"
        "execute(['__complete', 'bash', '=', 'flowtrain model=ffjord model.']);"
        "heavy = {'torch', 'numpy', 'hydra', 'pydantic', 'rich'} & {*sys.modules};"
        "print(*heavy, file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "width=" in told.stdout
    assert told.stderr.split() == []


BARE = {
    "bash": ("--norc", "--noprofile", "-i"), "fish": ("--no-config", "-i"), "zsh": ("-f", "-i")
}  # fmt: skip
# Functions stand in the place of the programs: they record what would run.
POSIX = """\
PS1="> "; eval "$(flowrun completion {shell})"
flowtrain() {{ printf '%s\\n' flowtrain "$@" > typed; }}
flowrun() {{ if [ $1 = __complete ]; then command flowrun "$@"; \
else printf '%s\\n' flowrun "$@" > typed; fi; }}; echo re'ady'
"""
FISH = """\
function fish_prompt; end; set fish_autosuggestion_enabled 0
flowrun completion fish | source
function flowtrain; printf '%s\\n' flowtrain $argv > typed; end
function flowrun; if test $argv[1] = __complete; command flowrun $argv; \
else; printf '%s\\n' flowrun $argv > typed; end; end; echo re'ady'
"""


def completed(shell: str, line: str, end: str, here: Path) -> str:
    """Type a line and TAB in an interactive shell; return what the shell then would run.

    Args:
        shell: bash, fish or zsh.
        line: what is typed before TAB.
        end: what the screen shows when the shell has answered.
        here: the folder in which the shell runs.
    """
    child, screen = pty.fork()
    if child == 0:
        os.chdir(here)
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.environ |= {"PATH": programs, "TERM": "xterm"}
        os.execvp(shell, [shell, *BARE[shell]])
    os.write(screen, (FISH if shell == "fish" else POSIX).format(shell=shell).encode())
    seen_on(screen, "ready\r\n")
    os.write(screen, f"{line}\t".encode())
    seen_on(screen, end)
    os.write(screen, b"\nexit\n")
    seen_on(screen, None)
    os.waitpid(child, 0)
    os.close(screen)
    return (here / "typed").read_text()


def seen_on(screen: int, text: str | None) -> None:
    """Read a screen until it shows a text, or until it closes."""
    seen = b""
    while text is None or text.encode() not in seen:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # it is closed
            piece = b""
        if not piece:
            assert text is None, seen.decode()
            return
        seen += piece


TIGHT = "solver@evaluation.solver"
JOB = "outputs/sweep/model=spline,seed=0"
TYPED = [
    ("flowtrain model=rea", "lnvp", ["flowtrain", "model=realnvp"]),
    ("flowtrain resume=outputs/sweep/m", "seed=0", ["flowtrain", f"resume={JOB}"]),
    (f"flowtrain {TIGHT}=dopri5_", "tight", ["flowtrain", f"{TIGHT}=dopri5_tight"]),
    ("flowrun evaluate odd", "name/", ["flowrun", "evaluate", "odd name/"]),
    ("flowrun compare outputs/sweep/model=s", "seed=0", ["flowrun", "compare", JOB]),
]


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize(("line", "end", "run"), TYPED, ids=[line for line, *_ in TYPED])
def test_a_real_shell_completes(
    shell: str, line: str, end: str, run: list[str], here: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    assert completed(shell, line, end, here).splitlines() == run
