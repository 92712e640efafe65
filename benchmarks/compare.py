"""RealNVP against FFJORD on the three data sets: trains each once and prints a Markdown table.

    make compare

Every run is a process of its own, one at a time, with the defaults of `flowtrain`.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

import flowtrain
from flowtrain.flows.continuous import ContinuousFlow

FOLDER = Path("outputs/compare")
MODELS = ("realnvp", "ffjord")
DATA = ("moons", "circles", "pinwheel")
CLOSE = 0.05  # nats: the KL whose first crossing is timed
SAMPLES = 10_000

COLUMNS = (
    "data", "model", "KL (nats)", "parameters", "train (s)", "ms / step", f"s to KL {CLOSE}",
    f"{SAMPLES:,} samples (s)", "evaluations to sample", "peak memory (MiB)",
)  # fmt: skip


def main() -> None:
    """Train what is not there yet, then print the table."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "--:|" * (len(COLUMNS) - 2))
    for data in DATA:
        for model in MODELS:
            folder = FOLDER / f"{model}-{data}"
            command = [f"model={model}", f"data={data}", f"hydra.run.dir={folder}"]
            subprocess.run(
                [sys.executable, "-m", "flowtrain", *command], check=True, stdout=sys.stderr
            )
            print("| " + " | ".join([data, model, *figures(folder)]) + " |", flush=True)


def figures(folder: Path) -> list[str]:
    """Return a run's row of the table."""
    result = json.loads((folder / "result.json").read_text())
    metrics = result["metrics"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    near = [line["seconds"] for line in lines if line.get("kl/val", 1.0) <= CLOSE]
    flow = flowtrain.load(folder)
    evaluations = "none"
    if isinstance(flow, ContinuousFlow):
        z = flow.sample_base(SAMPLES, torch.Generator().manual_seed(0))
        with torch.no_grad():
            evaluations = str(flow.cnf.solve(z, 0.0, 1.0).evaluations.forward)
    return [
        f"{metrics['kl/test']:.4f}",
        f"{result['parameters']:,}",
        f"{result['seconds']:.0f}",
        f"{1e3 / _median(lines, 'speed/steps_per_second'):.1f}",
        f"{near[0]:.0f}" if near else "not reached",
        f"{sampling_seconds(flow):.3f}",
        evaluations,
        f"{result['environment']['peak_memory_mib']}",
    ]


def sampling_seconds(flow: flowtrain.Flow) -> float:
    """Return the best of five timings of drawing `SAMPLES` points."""
    timings = []
    for seed in range(5):
        began = time.perf_counter()
        flow.sample(SAMPLES, torch.Generator().manual_seed(seed))
        timings.append(time.perf_counter() - began)
    return min(timings)


def _median(lines: list[dict[str, float]], tag: str) -> float:
    values = sorted(line[tag] for line in lines if tag in line)
    return values[len(values) // 2]


if __name__ == "__main__":
    main()
