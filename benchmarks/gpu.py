"""Training steps on a CUDA GPU beside the CPU: as they are, captured, compiled, of replicas.

    python benchmarks/gpu.py [--batches 512,4096,65536] [--seconds 1] [--compile] [--models spline]

Whole steps of the trainer, optimizer and all; no step is logged. The ways take turns of so many
seconds of the clock, and the median of three counts. The CPU has one thread, which is the default,
and as many as there are cores.
"""

import argparse
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from flowtrain.cli.compose import compose
from flowtrain.config.schema import Config, validate
from flowtrain.runs.folder import RunFolder
from flowtrain.training.replicas import open_replicas
from flowtrain.training.start import open_or_build
from flowtrain.training.step import train_step
from flowtrain.training.together import backward_of, train_steps
from flowtrain.training.tracking import Tracker

TURNS = 3
MATCHING = ("model=ffjord", "objective=flow_matching")
LIKELIHOOD = ("model=ffjord", "objective=maximum_likelihood", "solver=rk4", "solver.step_size=0.1")
MODELS = {
    "realnvp": ("model=realnvp",),
    "spline": ("model=spline",),
    "flow_matching": MATCHING,
    "likelihood_rk4": LIKELIHOOD,
    "realnvp_x16": ("model=realnvp", "trainer.replicas=16"),
    "flow_matching_x16": (*MATCHING, "trainer.replicas=16"),
}
SETTINGS = ("data=moons", "logger=none", "trainer.log_every=1000000000")


@dataclass(frozen=True)
class Way:
    """How a step is taken: settings of the trainer, threads, and torch's precision of products."""

    trainer: tuple[str, ...] = ()
    threads: int = 1
    precision: str = "highest"
    largest_batch: int = 2**30  # beyond it a turn takes too long


def ways(compiled: bool) -> dict[str, Way]:
    """Return all ways by their names."""
    cores = len(os.sched_getaffinity(0))
    gpu, graph = ("trainer.device=cuda",), ("trainer.device=cuda", "trainer.capture=true")
    found = {
        "CPU": Way(("trainer.device=cpu",), largest_batch=4096),
        f"CPU, {cores} threads": Way(("trainer.device=cpu",), threads=cores),
        "GPU": Way(gpu),
        "captured": Way(graph),
        "captured, TF32": Way(graph, precision="high"),
    }
    if compiled:
        found["compiled, captured"] = Way((*graph, "trainer.compile=true"))
    return found


def stepper(config: Config, folder: Path, opened: ExitStack) -> Callable[[], object]:
    """Return what takes a step of the run, or of all replicas, that a config asks for."""
    if config.trainer.replicas == 1:
        run = open_or_build(config, RunFolder(folder), None)
        tracker = Tracker(run.folder, step=-1, evaluated=-1, logger=config.logger)
        return lambda: train_step(run, tracker)
    runs = opened.enter_context(open_replicas(config, RunFolder(folder))).runs
    backward = backward_of(runs, capture=config.trainer.capture)
    trackers = [Tracker(run.folder, step=-1, evaluated=-1, logger=config.logger) for run in runs]
    return lambda: train_steps(runs, trackers, backward)


def milliseconds(step: Callable[[], object], way: Way, seconds: float) -> float:
    """Return the mean time of a step over so many seconds, the GPU's work included."""
    torch.set_num_threads(way.threads)
    torch.set_float32_matmul_precision(way.precision)
    step()
    torch.cuda.synchronize()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began) / steps


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batches", default="512,4096,65536")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--compile", action="store_true", help="compiled steps, too")
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    logging.disable()
    kinds = ways(options.compile)
    card = torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}, {platform.machine()}; milliseconds a step\n")
    print("| | batch |" + "".join(f" {name} |" for name in kinds))
    print("|---|--:|" + "--:|" * len(kinds))
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            cells = []
            with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
                steps = {}
                for number, (way, kind) in enumerate(kinds.items()):
                    if batch > kind.largest_batch or (name.endswith("x16") and batch > 4096):
                        continue
                    folder = Path(scratch) / str(number)
                    overrides = [*SETTINGS, *MODELS[name], *kind.trainer]
                    overrides.append(f"trainer.batch_size={batch}")
                    config = validate(compose(overrides, folder=folder).raw)
                    if config.trainer.replicas > 1 and config.trainer.compile:
                        continue
                    folder.mkdir()
                    torch.set_float32_matmul_precision(kind.precision)
                    steps[way] = stepper(config, folder, opened)
                turns = [
                    {way: milliseconds(step, kinds[way], options.seconds)
                     for way, step in steps.items()}
                    for _ in range(TURNS)
                ]  # fmt: skip
                for way in kinds:
                    cells.append(
                        f" {median(turn[way] for turn in turns):.2f} |" if way in steps else " |"
                    )
            print(f"| {name} | {batch:,} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
