"""What a training step costs with several replicas in one program, beside as many single steps.

    python benchmarks/replicas.py [--replicas 1,4,8,16] [--batch 128,512] [--repeat 15]

Whole steps of the trainer, optimizer and all, on one thread: R single ones and a stacked one of R,
in alternation. Processor time, medians of the repetitions; no step is logged.
"""

import argparse
import logging
import platform
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from flowtrain.cli.compose import compose
from flowtrain.config.schema import validate
from flowtrain.runs.folder import RunFolder
from flowtrain.training.replicas import replica_config
from flowtrain.training.run import Run, build_run
from flowtrain.training.step import train_step
from flowtrain.training.together import backward_of, train_steps
from flowtrain.training.tracking import Tracker

MODELS = {
    "realnvp": ["model=realnvp"],
    "spline": ["model=spline"],
    "glow": ["model=glow"],
    "affine": ["model=affine"],
    "ffjord, flow matching": ["model=ffjord", "objective=flow_matching"],
}
SETTINGS = ["data=moons", "logger=none", "trainer.log_every=1000000000", "trainer.device=cpu"]


def build(overrides: list[str], replicas: int, folder: Path) -> tuple[list[Run], list[Tracker]]:
    """Build runs of as many seeds, and what would record them."""
    config = validate(compose([*overrides, *SETTINGS], folder=folder).raw)
    folders = [RunFolder(folder / str(number)) for number in range(replicas)]
    for each in folders:
        each.path.mkdir(parents=True)
    runs = [build_run(replica_config(config, n), each) for n, each in enumerate(folders)]
    trackers = [Tracker(each, step=-1, evaluated=-1, logger=config.logger) for each in folders]
    return runs, trackers


def measure(overrides: list[str], replicas: int, repeat: int) -> tuple[float, float]:
    """Return milliseconds of a single step, and of a stacked one divided by its replicas."""
    with tempfile.TemporaryDirectory() as folder:
        runs, trackers = build(overrides, replicas + 1, Path(folder))
        alone, together = runs[-1], runs[:-1]
        backward = backward_of(together, capture=False)
        single, stacked = [], []
        for _ in range(repeat + 2):
            began = time.process_time()
            for _ in range(replicas):
                train_step(alone, trackers[-1])
            between = time.process_time()
            train_steps(together, trackers[:-1], backward)
            single.append((between - began) / replicas)
            stacked.append((time.process_time() - between) / replicas)
        for tracker in trackers:
            tracker.metrics.close()
    return 1e3 * median(single[2:]), 1e3 * median(stacked[2:])


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", default="1,4,8,16")
    parser.add_argument("--batch", default="128,512")
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    logging.disable()
    torch.set_num_threads(1)
    numbers = [int(text) for text in options.replicas.split(",")]
    print(f"torch {torch.__version__}, {platform.machine()}, one thread; times as fast as alone\n")
    print("| | batch | alone, ms |" + "".join(f" R = {number} |" for number in numbers))
    print("|---|--:|--:|" + "--:|" * len(numbers))
    for batch in map(int, options.batch.split(",")):
        for name, overrides in MODELS.items():
            sized = [*overrides, f"trainer.batch_size={batch}"]
            found = [measure(sized, number, options.repeat) for number in numbers]
            alone = median(single for single, _ in found)
            gains = "".join(
                f" {stacked:.2f} ms, {single / stacked:.2f}x |" for single, stacked in found
            )
            print(f"| {name} | {batch} | {alone:.2f} |{gains}", flush=True)


if __name__ == "__main__":
    main()
