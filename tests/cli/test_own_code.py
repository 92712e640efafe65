"""Pieces of a user's own, from the command line to a loaded run: density, field, objective.

No code that only a run's folder names may run unasked.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from flowtrain import load
from flowtrain.errors import UserError
from flowtrain.runs.load import open_run

Command = Callable[..., subprocess.CompletedProcess[str]]

DENSITY = """
import math
import torch
from flowtrain.densities import Density

class Triangle(Density):
    "Uniform on the triangle x, y >= 0, x + y <= side."

    def __init__(self, side):
        if not isinstance(side, int | float):
            raise TypeError(f"side must be a number, got {side!r}")
        low, high = torch.zeros(2).double(), torch.full((2,), float(side)).double()
        super().__init__(window=(low, high), resolution=side / 200)
        self.side = side

    def sample(self, n, generator):
        x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return self.side * torch.where(x.sum(1, keepdim=True) > 1, 1 - x, x)

    def log_prob(self, x):
        inside = (x >= 0).all(1) & (x.sum(1) <= self.side)
        return torch.where(inside, math.log(2 / self.side**2), -math.inf).to(x)

class Heavy(Triangle):
    def log_prob(self, x):
        return super().log_prob(x) + math.log(2)

class Cube(Density):
    "Uniform on the unit cube of five dimensions."

    dim = 5
    entropy = 0.0

    def __init__(self, offset=0.0):
        low = torch.full((5,), offset).double()
        super().__init__(window=(low, low + 1), resolution=0.01)

    def sample(self, n, generator):
        return self.window[0] + torch.rand(n, 5, generator=generator, dtype=torch.float64)

    def log_prob(self, x):
        low, high = (corner.to(x) for corner in self.window)
        inside = ((x >= low) & (x <= high)).all(1)
        return torch.where(inside, 0.0, -math.inf).to(x)

class Broken(Triangle):
    def sample(self, n, generator):
        return {}["nothing"]
"""
OBJECTIVE = """
class Loss:
    def __init__(self, weight=1.0):
        self.weight = weight

    def __call__(self, flow, x, generator):
        return -self.weight * flow.log_prob(x).mean(), lambda: {"weight": self.weight}

class PerPoint(Loss):
    def __call__(self, flow, x, generator):
        return -flow.log_prob(x), dict
"""
FIELD = """
import torch
from torch import nn

class Field(nn.Module):
    def __init__(self, dim, *, width, depth, activation):
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, width), nn.Linear(width, dim)

    def forward(self, t, z, tangents):
        h = torch.tanh(self.inner(z))
        moved = (tangents @ self.inner.weight.T) * (1 - h.square())
        return self.outer(h), moved @ self.outer.weight.T

class Wrong(Field):
    def forward(self, t, z, tangents):
        velocity, moved = super().forward(t, z, tangents)
        return velocity, 2 * moved

class Broken(Field):
    def forward(self, t, z, tangents):
        raise RuntimeError("two\\nlines")
"""
TARGET = """
import torch

def ring(x, radius=2.0):
    return -((x.norm(dim=1) - radius) / 0.4) ** 2 / 2

def pair(x):
    first, second = x.unbind(1)
    return -first**2 - second**2

def log_normal(x):
    return -(x.log() ** 2).sum(1) / 2
"""
SOURCES = {
    "my_density": DENSITY, "my_objective": OBJECTIVE, "my_field": FIELD, "my_target": TARGET,
}  # fmt: skip

# What makes a run tiny, without data, model and objective.
BRIEF = (
    "trainer=debug", "trainer.device=cpu", "trainer.threads=1", "trainer.figures=false",
    "splits.train=512", "splits.val=64", "splits.test=64", "evaluation.grid=16",
)  # fmt: skip
REALNVP = ("model=realnvp", "model.couplings=2", "model.hidden=8", "model.depth=1")
FFJORD = ("model=ffjord", "model.width=8", "trainer.max_steps=5", "solver=bosh3")
TRIANGLE = ("data=custom", "data.target=my_density:Triangle", "data.arguments.side=2")
LOSS = ("objective=custom", "objective.target=my_objective:Loss", "objective.arguments.weight=0.5")
KINDS = {
    "data.target=my_density:Triangle": (*REALNVP, *TRIANGLE),
    "objective.target=my_objective:Loss": (*REALNVP, "data=gaussian_mixture", *LOSS),
    "model.field=my_field:Field": (*FFJORD, "data=gaussian_mixture", "model.field=my_field:Field"),
}


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path) -> Iterator[None]:
    """Write the user's files, and forget what was imported from those of another test."""
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
        sys.modules.pop(name, None)
    yield
    for name in SOURCES:
        sys.modules.pop(name, None)


def forget() -> None:
    """Let the next import of the user's files be the first one."""
    for name in SOURCES:
        sys.modules.pop(name, None)


def test_a_density_of_one_s_own_is_trained_on_and_has_its_kl(
    flowtrain: Command, tmp_path: Path
) -> None:
    told = flowtrain(*BRIEF, *REALNVP, *TRIANGLE, "hydra.run.dir=run", "evaluation.grid=64")
    assert (told.returncode, told.stderr) == (0, "")
    assert "KL(data | model)" in told.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["data"] == {
        "name": "custom", "target": "my_density:Triangle", "arguments": {"side": 2},
        "condition": None, "interval": None,
    }  # fmt: skip
    metrics = result["metrics"]
    assert metrics["nll/entropy"] == pytest.approx(math.log(2), abs=0.01)
    assert metrics["kl/test"] == pytest.approx(
        metrics["nll/test"] - metrics["nll/entropy"], abs=5 * metrics["nll_error/test"]
    )
    assert metrics["kl/test"] > 0
    assert sys.path.count(str(tmp_path)) == 0


CUBE = ("data=custom", "data.target=my_density:Cube")


@pytest.mark.parametrize("given", [(), ("data.condition=offset", "data.interval=[0,1]")])
def test_a_density_of_one_s_own_may_have_more_dimensions_than_a_grid_covers(
    flowtrain: Command, tmp_path: Path, given: tuple[str, ...]
) -> None:
    asked = (*BRIEF, "trainer.max_steps=1", "trainer.figures=true", *REALNVP, *CUBE, *given)
    told = flowtrain(*asked, "hydra.run.dir=run")
    assert (told.returncode, told.stderr) == (0, "")
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["nll/entropy"] == 0
    assert metrics["kl/test"] == metrics["kl_paired/test"] > 0
    assert "mass/test" not in metrics


@pytest.mark.parametrize("arguments", ["{side:2}", "{side: 2}"])
def test_all_arguments_may_be_given_at_once(
    flowtrain: Command, tmp_path: Path, arguments: str
) -> None:
    asked = (*TRIANGLE[:2], f"data.arguments={arguments}", "trainer.max_steps=1")
    assert flowtrain(*BRIEF, *REALNVP, *asked, "hydra.run.dir=run").returncode == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["data"]["arguments"] == {"side": 2}


def test_an_argument_can_be_given_of_each_point(flowtrain: Command) -> None:
    given = ("data=custom", "data.target=my_density:Triangle", "data.condition=side")
    done = flowtrain(*BRIEF, *REALNVP, *given, "data.interval=[1,2]")
    assert done.returncode == 0, done.stderr
    assert "given of each point: side (a number, 1 to 2 in training)" in done.stdout
    forget()
    refused = flowtrain(*BRIEF, *REALNVP, *given, "data.interval=[-1,2]")
    assert refused.returncode != 0
    assert "the window from [0.0, 0.0] to [-1.0, -1.0] is no finite box" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_sweep_over_an_argument_has_folders_with_plain_names(
    flowtrain: Command, tmp_path: Path
) -> None:
    swept = (*TRIANGLE[:2], "data.arguments.side=1.0,2.0", "trainer.max_steps=1")
    told = flowtrain("-m", *BRIEF, *REALNVP, *swept)
    assert (told.returncode, told.stderr) == (0, "")
    folders = sorted(path.parent for path in tmp_path.rglob("result.json"))
    assert [folder.name.split(",")[0] for folder in folders] == [
        "data.arguments.side=1.0", "data.arguments.side=2.0",
    ]  # fmt: skip
    assert not {"+", "\\"} & {*"".join(folder.name for folder in folders)}
    table = (folders[0].parent / "compare.md").read_text()
    assert "data.arguments.side" in table
    again = flowtrain(f"resume={folders[1]}", "trainer.max_steps=2", "trust_code=true")
    assert (again.returncode, again.stderr) == (0, "")


MISTAKES = [
    (
        (*CUBE, *REALNVP, "data.condition=rotation", "data.interval=[0,1]"),
        "data: condition=rotation needs points in a plane; leave it null",
    ),
    (
        (*CUBE, *FFJORD, "trainer.animation=true"),
        "trainer.animation: custom has no plane to animate in; leave it false",
    ),
    (
        (*TRIANGLE[:1], "data.target=my_density:Heavy", "data.arguments.side=2", *REALNVP),
        "data: exp(log_prob) integrates to 2.",
    ),
    (
        (*TRIANGLE[:1], "data.target=my_density:Broken", "data.arguments.side=2", *REALNVP),
        "data: my_density:Broken: KeyError: 'nothing' (my_density.py, line ",
    ),
    (
        (*TRIANGLE[:2], "data.arguments.side=wide", *REALNVP),
        "data: my_density:Triangle: TypeError: side must be a number, got 'wide' (my_density.py, ",
    ),
    ((*TRIANGLE[:2], *REALNVP), "data: my_density:Triangle: TypeError: "),
    (
        (*TRIANGLE, "data.arguments.height=3", *REALNVP),
        "data: my_density:Triangle: TypeError: ",
    ),
    ((*TRIANGLE[:1], "data.target=my_density:Square", *REALNVP), "data: my_density has no 'Squar"),
    ((*TRIANGLE[:1], "data.target=nowhere:Square", *REALNVP), "data: no module 'nowhere' on PYTH"),
    (
        (*TRIANGLE[:1], "data.target=my_objective:Loss", *REALNVP),
        "data: a Loss is no density: subclass flowtrain.densities.Density",
    ),
    ((*FFJORD, "model.field=my_field:Wrong"), "model: the field's tangents must be J @ tangents"),
    (
        (*FFJORD, "model.field=my_field:Broken"),
        "model.field: RuntimeError: two lines (my_field.py, line ",
    ),
    ((*FFJORD, "model.field=my_field:Nothing"), "model.field: my_field has no 'Nothing'"),
    ((*FFJORD, "model.field=my_field"), "model.field: 'my_field' is unknown; choose from concats"),
    (
        (*REALNVP, *LOSS[:1], "objective.target=my_objective:PerPoint"),
        "objective: the loss must be a finite scalar tensor, got the shape (8,)",
    ),
    (
        (*REALNVP, *LOSS[:2], "objective.arguments.wieght=2"),
        "objective: my_objective:Loss: TypeError: ",
    ),
    ((*REALNVP, *LOSS[:1]), "objective.target: missing; it has no default"),
    (
        (*FFJORD, *LOSS, "solver=dopri5"),
        "solver: custom solves no ODE in training, dopri5 would have no effect",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES]
)
def test_code_that_cannot_be_used_is_refused_in_one_line(
    flowtrain: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    told = flowtrain(*BRIEF, *arguments, "hydra.run.dir=run")
    assert told.returncode == 1
    assert len(told.stdout.splitlines()) in (0, 3)  # what was about to be trained, and where
    assert told.stderr.startswith(f"flowtrain: {message}")
    assert len(told.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    logs = [path.read_text() for path in (tmp_path / "run").glob("*.log")]
    assert not any("Traceback" in log for log in logs)


BESIDE = (
    "trainer=debug", "trainer.device=cpu", "trainer.threads=1", "model=affine",
    "data=unnormalized", "data.dim=2", "data.window=[-5,5]", "data.target=my_target:ring",
)  # fmt: skip


def test_a_target_in_the_plane_has_its_constant_and_its_kl(
    flowtrain: Command, flowrun: Command, tmp_path: Path
) -> None:
    told = flowtrain(
        *BESIDE, "objective=reverse_kl", "+data.arguments.radius=1.5", "hydra.run.dir=run"
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "no training points" in told.stdout
    figures = {path.stem for path in (tmp_path / "run" / "figures").glob("*-final.png")}
    assert figures == {"density-final", "curves-final"}
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    # 2π ∫ r exp(-((r - 1.5) / 0.4)² / 2) dr, to where r < 0 is negligible
    log_z = math.log(2 * math.pi * 1.5 * 0.4 * math.sqrt(2 * math.pi))
    assert metrics["elbo/test"] + metrics["kl_reverse/test"] == pytest.approx(log_z, abs=1e-3)
    assert metrics["kl/test"] > 0
    assert not any(tag.startswith("nll/") and tag != "nll/entropy" for tag in metrics)

    told = flowrun("evaluate", "run", "--trust-code")
    assert (told.returncode, told.stderr) == (0, "")
    assert "  KL(data | model) " in told.stdout
    assert flowrun("plot", "run", "--what", "curves", "--trust-code").returncode == 0
    told = flowrun("diagnose", "run", "--trust-code")
    assert told.stderr == "flowrun: run: unnormalized has no points to diagnose by\n"
    flowrun("sample", "run", "-n", "3", "-o", "x.csv", "--trust-code")
    told = flowrun("score", "run", "x.csv", "--threshold-quantile", "0.1", "--trust-code")
    assert told.stderr == "flowrun: run: unnormalized has no points that a quantile could be of\n"
    told = flowtrain("resume=run", "trainer.max_steps=22", "trust_code=true")
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "objective: unnormalized has no points that maximum_likelihood could learn from"),
        (
            ("data.dim=4", "data.target=my_target:pair"),
            "data: my_target:pair: ValueError: too many",
        ),
        (("data.target=my_target:log_normal",), "data: the log-density is nan at ("),
        (("data.window=[5,-5]",), "data: the window from [5.0, 5.0] to [-5.0, -5.0] is no "),
        (("data.window=[[-5,-5,-5],[5,5,5]]",), "data: the window has 3 numbers in a corner, "),
        (("data.window=[-1,1]",), "data: 14.65% of the mass is at the edge of the window"),
        (("+data.arguments.height=1",), "data: my_target:ring: TypeError: "),
        (("data.target=my_target:rong",), "data: my_target has no 'rong'"),
        (("data.dim=null",), "data.dim: missing; it has no default"),
        (("data.window=[a,5]",), "data.window: ['a', 5] is refused: it should be two numbers, as"),
        (("data.window=[0,1,2]",), "data.window: [0, 1, 2] is refused: it should be two numbers"),
        (("splits=sampled",), "splits: unnormalized needs splits=none, not sampled"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused_in_one_line(
    flowtrain: Command, arguments: tuple[str, ...], message: str
) -> None:
    objective = ("objective=reverse_kl",) if arguments else ()
    told = flowtrain(*BESIDE, *objective, *arguments, "hydra.run.dir=run")
    assert told.returncode == 1
    assert told.stderr.startswith(f"flowtrain: {message}")
    assert len(told.stderr.splitlines()) == 1


def test_an_objective_of_one_s_own_is_minimised_and_has_its_curves(
    flowtrain: Command, tmp_path: Path, history: Callable[[Path], list[dict[str, float]]]
) -> None:
    asked = (*BRIEF, *REALNVP, "data=gaussian_mixture", "trainer.log_every=1", "trainer.clip=0")
    assert flowtrain(*asked, *LOSS, "hydra.run.dir=half").returncode == 0
    assert flowtrain(*asked, "hydra.run.dir=whole").returncode == 0
    half, whole = (
        next(line for line in history(tmp_path / name) if "loss" in line)
        for name in ("half", "whole")
    )
    assert half["weight"] == 0.5
    assert half["loss"] == pytest.approx(0.5 * whole["loss"], rel=1e-5)


def test_a_continuous_flow_takes_an_objective_of_one_s_own(
    flowtrain: Command, tmp_path: Path
) -> None:
    asked = (*BRIEF, "data=gaussian_mixture", *FFJORD[:3], "trainer.batch_size=32", *LOSS)
    told = flowtrain(*asked, "hydra.run.dir=run")
    assert (told.returncode, told.stderr) == (0, "")
    assert "objective" in json.loads((tmp_path / "run" / "result.json").read_text())["config"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_code_that_only_a_folder_names_runs_unasked(
    flowtrain: Command, flowrun: Command, tmp_path: Path, kind: str
) -> None:
    assert flowtrain(*BRIEF, *KINDS[kind], "hydra.run.dir=run").returncode == 0
    forget()
    named = f"run: this run uses code of its user's own, {kind}: if you trust that code, "

    with pytest.raises(UserError) as caught:
        load("run")
    assert str(caught.value) == f"{named}say --trust-code (flowrun) or trust_code=True (Python)"
    for command in (
        ["evaluate", "run"],
        ["sample", "run", "-n", "3", "-o", "-"],
        ["score", "run", "my_density.py"],
        ["animate", "run"],
    ):
        told = flowrun(*command)
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr == f"flowrun: {caught.value}\n"
    for more in ((), ("trainer.max_steps=30",)):
        told = flowtrain("resume=run", *more)
        assert told.returncode == 1
        assert told.stdout.splitlines()[0] == "resuming run"
        assert told.stderr == f"flowtrain: {named}add trust_code=true\n"
    assert flowrun("compare", "run").returncode == 0
    assert not {*SOURCES} & {*sys.modules}


def test_no_code_that_only_a_folder_of_replicas_names_runs_unasked(
    flowtrain: Command, tmp_path: Path
) -> None:
    kind = "data.target=my_density:Triangle"
    asked = (*BRIEF, *KINDS[kind], "trainer.replicas=2", "trainer.max_steps=2")
    assert flowtrain(*asked, "hydra.run.dir=run").returncode == 0
    forget()
    told = flowtrain("resume=run", "trainer.max_steps=3")
    assert told.returncode == 1
    assert told.stderr == (
        f"flowtrain: run: this run uses code of its user's own, {kind}: if you trust that code, "
        "add trust_code=true\n"
    )
    assert not {*SOURCES} & {*sys.modules}
    assert flowtrain("resume=run", "trainer.max_steps=3", "trust_code=true").returncode == 0


def test_a_teacher_s_code_is_that_of_its_student(flowtrain: Command, tmp_path: Path) -> None:
    taught = (*BRIEF, *FFJORD[:3], *TRIANGLE, "trainer.max_steps=2")
    assert flowtrain(*taught, "objective=flow_matching", "hydra.run.dir=teacher").returncode == 0
    reflow = ("objective=reflow", "objective.teacher=teacher", "objective.pairs=64")
    told = flowtrain(*taught, *reflow, "hydra.run.dir=student")
    assert (told.returncode, told.stderr) == (0, "")
    forget()
    other = ("data=gaussian_mixture", "hydra.run.dir=other")
    told = flowtrain(*BRIEF, *FFJORD[:3], *reflow, *other)
    assert told.stderr.endswith("if you trust that code, name it for this run, too\n")
    assert not {*SOURCES} & {*sys.modules}


@pytest.mark.parametrize("kind", KINDS)
def test_code_that_is_trusted_runs(
    flowtrain: Command, flowrun: Command, tmp_path: Path, kind: str
) -> None:
    flowtrain(*BRIEF, *KINDS[kind], "hydra.run.dir=run")
    forget()
    flow = load("run", trust_code=True)
    assert flow.log_prob(torch.full((3, 2), 0.5)).isfinite().all()
    told = flowrun("sample", "run", "-n", "3", "-o", "-", "--trust-code")
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.splitlines()) == 4
    told = flowrun("evaluate", "run", "--json", "-", "--trust-code")
    assert told.returncode == 0
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert json.loads(told.stdout)["metrics"]["kl/test"] == pytest.approx(
        recorded["kl/test"], rel=1e-4, abs=1e-6
    )
    told = flowtrain("resume=run", "trainer.max_steps=22", "trust_code=true")
    assert (told.returncode, told.stderr) == (0, "")
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (saved["step"], saved["config"]["trust_code"]) == (22, False)


def test_code_that_the_user_names_again_is_trusted(flowtrain: Command, tmp_path: Path) -> None:
    flowtrain(*BRIEF, *REALNVP, *TRIANGLE, "hydra.run.dir=run")
    forget()
    told = flowtrain("resume=run", "trainer.max_steps=22", *TRIANGLE)
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["step"] == 22

    forget()
    told = flowtrain("resume=run", *TRIANGLE[:1], "data.target=my_density:Heavy", TRIANGLE[2])
    assert told.returncode == 1
    assert told.stderr.splitlines()[:-1] == [
        "flowtrain: this folder holds another run:",
        "data.target: the run has 'my_density:Triangle', this asks for 'my_density:Heavy'",
    ]
    told = flowtrain("resume=run", *TRIANGLE[:2], "data.arguments.side=3")
    assert told.stderr.splitlines()[1:-1] == ["data.arguments.side: the run has 2, this asks for 3"]
    assert not {*SOURCES} & {*sys.modules}


def test_a_command_that_is_typed_again_goes_on(flowtrain: Command, tmp_path: Path) -> None:
    command = (*BRIEF, *REALNVP, *TRIANGLE, "hydra.run.dir=run")
    flowtrain(*command)
    told = flowtrain(*command, "trainer.max_steps=22")
    assert (told.returncode, told.stderr) == (0, "")
    assert "resuming at step 20" in told.stdout


def test_a_loaded_run_has_the_user_s_density(flowtrain: Command) -> None:
    flowtrain(*BRIEF, *REALNVP, *TRIANGLE, "hydra.run.dir=run")
    density = open_run("run", trust_code=True).density
    assert density is not None
    assert type(density).__name__ == "Triangle"
    assert vars(density)["side"] == 2
