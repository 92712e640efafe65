"""Beside other libraries, on one CPU core: KL after a budget of training, a step, the start.

    make bench
    make bench ARGS="--data circles --budgets 5 20"

All learners of a comparison run in this process, in turns, with one thread; budgets and times are
seconds of the CPU, so that a busy machine costs all of them the same. It takes ten minutes of a
core, and the trainings of the budgets are most of it. Results go to benchmarks/results.json, as
tables to docs/benchmarks.md and as a picture to docs/benchmarks.png.
"""

import argparse
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import learners
from benchmarks.learners import Learner, Ours, configured, kl
from flowtrain.build import build_density
from flowtrain.densities.density import Density

HERE = Path(__file__).parent
RESULTS, TABLES = HERE / "results.json", HERE.parent / "docs" / "benchmarks.md"
PICTURE = TABLES.with_suffix(".png")
MATCHING = ["model=ffjord", "objective=flow_matching"]
Make = Callable[[], Learner]


def main() -> None:
    """Measure, write both files, and print the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", default="moons", help="the density of the budgets")
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[5, 10, 30], help="CPU seconds of training"
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of the step comparison")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a learner in a turn")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        makers = flows(asked.data, Path(scratch))
        results: dict[str, Any] = {
            "environment": environment(),
            "data": asked.data,
            "step": steps(pairs(asked.data, Path(scratch)), asked.rounds, asked.seconds),
            "kl": budgets(makers, asked.data, asked.budgets),
            "start": starts(Path(scratch)),
        }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    TABLES.write_text(tables(results))
    picture(results).savefig(PICTURE, dpi=120)
    print(tables(results))


def environment() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    packages = ("flowtrain", "torch", "zuko", "normflows", "torchcfm")
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def points_of(density: Density) -> Tensor:
    """Return the points to train a peer on."""
    return density.sample(learners.POINTS, torch.Generator().manual_seed(1)).float()


def ours(overrides: list[str], data: str, scratch: Path, number: Any = count()) -> Make:  # noqa: B008
    """Return what makes a run of this project, each in a folder of its own."""
    return lambda: Ours([*overrides, f"data={data}"], scratch / str(next(number)))


def flows(data: str, scratch: Path) -> dict[str, Make]:
    """Return what is trained for a budget, by name: this project's recipes, and its peers."""
    points = points_of(density_of(data))
    both = ["model=ffjord", "objective=flow_matching_then_likelihood"]
    return {
        "flowtrain, spline": ours(["experiment=best"], data, scratch),
        "flowtrain, flow matching": ours(MATCHING, data, scratch),
        "flowtrain, flow matching, then likelihood": ours(both, data, scratch),
        "flowtrain, RealNVP": ours(["model=realnvp"], data, scratch),
        "zuko, NSF": lambda: learners.zuko_nsf(points),
        "normflows, NSF": lambda: learners.normflows_nsf(points),
        "normflows, RealNVP": lambda: learners.normflows_realnvp(points),
        "torchcfm": lambda: learners.torchcfm_matching(points),
    }


def pairs(data: str, scratch: Path) -> dict[str, dict[str, Make]]:
    """Return the same architecture by several libraries, ours first."""
    points = points_of(density_of(data))
    network = [
        "model.field=time_mlp", "objective.targets=sample", "objective.times=uniform",
        "optimizer=adam",
    ]  # fmt: skip
    return {
        "RealNVP, 24 couplings of 2 x 48": {
            "flowtrain": ours(["model=realnvp", "optimizer=adam"], data, scratch),
            "zuko": lambda: learners.zuko_realnvp(points),
            "normflows": lambda: learners.normflows_realnvp(points),
        },
        "spline, 8 couplings of 2 x 64, 16 bins": {
            "flowtrain": ours(["model=spline", "optimizer=adam"], data, scratch),
            "zuko": lambda: learners.zuko_nsf(points),
            "normflows": lambda: learners.normflows_nsf(points),
        },
        "flow matching, a network of 3 x 64": {
            "flowtrain": ours([*MATCHING, *network], data, scratch),
            "torchcfm": lambda: learners.torchcfm_matching(points),
        },
        "CNF, a network of 3 x 64, exact trace, dopri5 at 1e-4": {
            "flowtrain": ours(
                ["model=ffjord", "model.field=time_mlp", "optimizer=adam"], data, scratch
            ),
            "zuko": lambda: learners.zuko_cnf(points),
        },
    }


def density_of(data: str) -> Density:
    """Return the density that conf/data/<data>.yaml names."""
    density = build_density(configured(["model=affine", f"data={data}"]))
    assert isinstance(density, Density)
    return density


def steps(
    pairs: dict[str, dict[str, Make]], rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of a training step."""
    medians: dict[str, dict[str, float]] = {}
    for name, makers in pairs.items():
        torch.manual_seed(0)
        made = {library: make() for library, make in makers.items()}
        times: dict[str, list[float]] = {library: [] for library in made}
        for turn in range(rounds + 1):
            for library, learner in made.items():
                taken, began = 0, time.process_time()
                while time.process_time() < began + seconds:
                    learner.step(0.5)
                    taken += 1
                if turn:  # the first warms up
                    times[library].append(1e3 * (time.process_time() - began) / taken)
        medians[name] = {library: statistics.median(each) for library, each in times.items()}
        print(f"{name}: " + ", ".join(f"{k} {v:.2f} ms" for k, v in medians[name].items()))
    return medians


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
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def picture(results: dict[str, Any]) -> Figure:
    """Return a figure of KL against the budget: this project's recipes in full lines."""
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots()
    for name, found in results["kl"].items():
        style = "o-" if name.startswith("flowtrain") else "o--"
        if all(map(math.isfinite, found.values())):
            axes.plot([float(each) for each in found], list(found.values()), style, label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="CPU seconds of training",
        ylabel=f"KL to {results['data']}, nats",
    )  # fmt: skip
    axes.set_xticks([float(each) for each in found], list(found))
    axes.minorticks_off()
    figure.legend(fontsize="small", loc="outside right upper")
    return figure


def told(kl: float) -> str:
    """Return a KL, or that the likelihood overflows at a point where there are data."""
    return f"{kl:.4f}" if math.isfinite(kl) else "overflows"


def tables(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    versions = ", ".join(f"{key} {value}" for key, value in results["environment"].items())
    budgets = list(next(iter(results["kl"].values())))
    lines = [
        "# Beside other libraries",
        "",
        "By `make bench`: one CPU core, one thread, seconds of the CPU, batches of 512, gradients",
        "clipped to 1. Peers have their documented losses and rates, on points whitened as ours.",
        "",
        f"*{versions}.*",
        "",
        f"## KL after a budget of training, {results['data']}",
        "",
        "KL(data | model) in nats, by the same quadrature for all; every budget is a training of",
        "its own, and its learning rate falls along half a cosine.",
        "",
        f"![KL against the seconds of training]({PICTURE.name})",
        "",
        "| | " + " | ".join(f"{budget} s" for budget in budgets) + " |",
        "|---|" + "--:|" * len(budgets),
    ]
    for name, found in results["kl"].items():
        lines.append(f"| {name} | " + " | ".join(told(found[b]) for b in budgets) + " |")
    lines += [
        "",
        "## Milliseconds per training step",
        "",
        "The same architecture, all by Adam, in turns, medians. In brackets this project's time",
        "as a fraction of theirs. A CNF's adaptive solver takes the steps that its own weights",
        "ask for.",
        "",
    ]
    for name, found in results["step"].items():
        own = found["flowtrain"]
        cells = [f"flowtrain {own:.2f}"] + [
            f"{library} {time:.2f} ({own / time:.2f})"
            for library, time in found.items()
            if library != "flowtrain"
        ]
        lines.append(f"- {name}: " + ", ".join(cells))
    lines += ["", "## Start", "", "CPU seconds from the shell to the end of the process.", ""]
    lines += [f"- `{name}`: {seconds:.2f}" for name, seconds in results["start"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
