"""Beside other libraries, on one CPU core: KL after a budget of training, a step, the start.

    make bench
    make bench ARGS="--data circles --budgets 5 20"
    make bench ARGS="--only step start"

All learners of a comparison run in this process, in turns, with one thread; budgets and times are
seconds of the CPU, so that a busy machine costs all of them the same. It takes forty minutes of a
core, and the trainings of the budgets are most of it. Results go to benchmarks/results.json, as
tables to docs/benchmarks.md and as a picture to docs/benchmarks.png.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import learners, page, peers, peers_jax, textbook
from benchmarks.growth import growth
from benchmarks.learners import Learner, Make, Maker, configured, kl, maker_in
from benchmarks.page import COMPILED, OURS
from benchmarks.shares import dispatch, shares
from flowtrain.build import build_density
from flowtrain.densities.density import Density

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE.parent / "docs" / "benchmarks.md"
PEERS = ("zuko", "normflows", "nflows", "torchcfm", "flowjax", "diffrax", "jax", "torchdiffeq")
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
PARTS = ("step", "shares", "start", "growth", "kl")
MATCHING = ["model=ffjord", "objective=flow_matching"]
# Pairs and uniform times, as torchcfm has them.
PAIRS = ["objective.targets=sample", "objective.times=uniform"]


def main() -> None:
    """Measure, write all files, and print the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--data", nargs="+", default=["moons", "circles", "pinwheel"], help="of the budgets"
    )
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[5, 10, 30], help="CPU seconds of training"
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of the step comparison")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a learner in a turn")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to renew")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["XLA_FLAGS"] = ONE_THREAD  # before the first use of jax
    results: dict[str, Any] = json.loads(RESULTS.read_text()) | {"environment": environment()}
    with tempfile.TemporaryDirectory() as scratch:
        maker = maker_in(Path(scratch))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch  # what is compiled is compiled here
        measures: dict[str, Callable[[], Any]] = {
            "step": lambda: steps(pairs(maker), asked.rounds, asked.seconds),
            "shares": lambda: {
                "dispatch": dispatch(),
                "steps": shares({name: made[OURS] for name, made in pairs(maker).items()}),
            },
            "start": lambda: starts(Path(scratch)),
            "growth": lambda: growth(maker),
            "kl": lambda: {
                data: budgets(flows(data, maker), data, asked.budgets) for data in asked.data
            },
        }
        results |= {part: measures[part]() for part in asked.only}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    PAGE.write_text(page.text(results))
    page.picture(results["kl"]).savefig(PAGE.with_suffix(".png"), dpi=120)
    print(page.text(results))


def environment() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    packages = ("flowtrain", "torch", *PEERS)
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def points_of(density: Density) -> Tensor:
    """Return the points to train a peer on."""
    return density.sample(learners.POINTS, torch.Generator().manual_seed(1)).float()


def flows(data: str, maker: Maker) -> dict[str, Make]:
    """Return what is trained for a budget, by name: this project's recipes, and its peers."""
    points = points_of(density_of(data))
    both = ["model=ffjord", "objective=flow_matching_then_likelihood"]

    def ours(*overrides: str) -> Make:
        return maker(f"data={data}", *overrides)

    return {
        "flowtrain, spline": ours("experiment=best"),
        "flowtrain, flow matching": ours(*MATCHING),
        "flowtrain, flow matching, then likelihood": ours(*both),
        "flowtrain, RealNVP": ours("model=realnvp"),
        "zuko, NSF": lambda: peers.zuko_nsf(points),
        "normflows, NSF": lambda: peers.normflows_nsf(points),
        "nflows, NSF": lambda: peers.nflows_nsf(points),
        "flowjax, NSF": lambda: peers_jax.flowjax_nsf(points),
        "zuko, RealNVP": lambda: peers.zuko_realnvp(points),
        "normflows, RealNVP": lambda: peers.normflows_realnvp(points),
        "nflows, RealNVP": lambda: peers.nflows_realnvp(points),
        "textbook, RealNVP": lambda: textbook.realnvp(points),
        "torchcfm, flow matching": lambda: peers.torchcfm_matching(points),
    }


def pairs(maker: Maker) -> dict[str, dict[str, Make]]:
    """Return the same architecture by several libraries, ours first, on moons."""
    points = points_of(density_of("moons"))
    plain = ["model.field=time_mlp", "solver=midpoint", f"solver.step_size={1 / learners.STEPS}"]

    def ours(*overrides: str) -> Make:
        return maker("data=moons", "optimizer=adam", *overrides)

    return {
        "RealNVP, 24 couplings of 2 x 48": {
            OURS: ours("model=realnvp"),
            COMPILED: ours("model=realnvp", "trainer.compile=true"),
            "zuko": lambda: peers.zuko_realnvp(points),
            "normflows": lambda: peers.normflows_realnvp(points, nn.SiLU),
            "nflows": lambda: peers.nflows_realnvp(points),
            "textbook": lambda: textbook.realnvp(points),
        },
        "spline, 8 couplings of 2 x 64, 16 bins": {
            OURS: ours("model=spline"),
            COMPILED: ours("model=spline", "trainer.compile=true"),
            "zuko": lambda: peers.zuko_nsf(points),
            "normflows": lambda: peers.normflows_nsf(points),
            "nflows": lambda: peers.nflows_nsf(points),
            "flowjax, compiled": lambda: peers_jax.flowjax_nsf(points),
        },
        "flow matching, torchcfm's network of 3 x 64": {
            OURS: ours(*MATCHING, "model.field=benchmarks.peers:torchcfm_field", *PAIRS),
            "torchcfm": lambda: peers.torchcfm_matching(points),
        },
        "CNF, a network of 3 x 64, exact trace, 20 evaluations": {
            OURS: ours("model=ffjord", *plain),
            COMPILED: ours("model=ffjord", *plain, "trainer.compile=true"),
            "textbook": lambda: textbook.neural_ode(points),
            "diffrax, compiled": lambda: peers_jax.diffrax_cnf(points),
        },
        "CNF, a network of 3 x 64, exact trace, dopri5 at 1e-4": {
            OURS: ours("model=ffjord", "model.field=time_mlp"),
            COMPILED: ours("model=ffjord", "model.field=time_mlp", "trainer.compile=true"),
            "zuko": lambda: peers.zuko_cnf(points, atol=1e-4, rtol=1e-4),
            "zuko, its default tolerances, 1e-6 and 1e-5": lambda: peers.zuko_cnf(points),
        },
    }


def density_of(data: str) -> Density:
    """Return the density that conf/data/<data>.yaml names."""
    density = build_density(configured(["model=affine", f"data={data}"]))
    assert isinstance(density, Density)
    return density


def steps(
    pairs: dict[str, dict[str, Make]], rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the median milliseconds of a training step, and the CPU seconds of the first one."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, makers in pairs.items():
        torch.manual_seed(0)
        made: dict[str, Learner] = {}
        compiling: dict[str, float] = {}
        for library, make in makers.items():
            began = spent()
            made[library] = make()
            made[library].step(0.5)
            compiling[library] = spent() - began
        times: dict[str, list[float]] = {library: [] for library in made}
        for turn in range(rounds + 1):
            for library, learner in made.items():
                taken, began = 0, time.process_time()
                while time.process_time() < began + seconds:
                    learner.step(0.5)
                    taken += 1
                if turn:  # the first warms up
                    times[library].append(1e3 * (time.process_time() - began) / taken)
        medians = {library: statistics.median(each) for library, each in times.items()}
        found[name] = {
            library: {"ms": medians[library], "compiling": compiling[library]} for library in made
        }
        print(f"{name}: " + ", ".join(f"{k} {v:.2f} ms" for k, v in medians.items()), flush=True)
    return found


def budgets(
    makers: dict[str, Make], data: str, seconds: list[float]
) -> dict[str, dict[str, float]]:
    """Return KL in nats after each budget of training, every one a training of its own."""
    found: dict[str, dict[str, float]] = {}
    density = density_of(data)
    for name, make in makers.items():
        for budget in seconds:
            torch.manual_seed(0)
            learner = make()
            learner.step(0.0)  # imports and caches are nobody's training
            began = time.process_time()
            while (done := (time.process_time() - began) / budget) < 1:
                learner.step(done)
            found.setdefault(name, {})[f"{budget:g}"] = kl(density, learner)
            print(f"{name}, {budget:g} s: KL {found[name][f'{budget:g}']:.4f}", flush=True)
    return found


def starts(scratch: Path) -> dict[str, float]:
    """Return the median CPU seconds of three starts of each kind, from the shell to its end."""
    short = [
        "trainer.max_steps=1", "trainer.figures=false", "evaluation.grid=16", "splits.val=2",
        "splits.test=2", "trainer.device=cpu", f"hydra.run.dir={scratch}/start",
    ]  # fmt: skip
    program = [sys.executable, "-m", "flowtrain"]
    commands = {
        "import hydra": [sys.executable, "-c", "import hydra"],
        "import torch": [sys.executable, "-c", "import torch"],
        "flowtrain --help": [*program, "--help"],
        "flowtrain model=realnvp, one step": [*program, "model=realnvp", *short],
        "flowtrain model=ffjord, one step": [*program, "model=ffjord", *short],
    }
    medians = {}
    for name, command in commands.items():
        times = []
        for turn in range(3):
            last = [
                f"{word}-{name.count('f')}{turn}" if "run.dir" in word else word for word in command
            ]
            before = spent()
            subprocess.run(last, check=True, capture_output=True)
            times.append(spent() - before)
        medians[name] = statistics.median(times)
    return medians


def spent() -> float:
    """Return the CPU seconds of this process and of all its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
