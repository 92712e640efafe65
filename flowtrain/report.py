"""What a run says about itself: result.json, the closing table, and doubts about its figures."""

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from flowtrain.checkpoint import Progress, replacing
from flowtrain.config import Config
from flowtrain.errors import CheckpointError

DISTANCES = {"energy": "energy distance", "mmd": "squared MMD", "sliced_w2": "sliced W2"}


def write_result(folder: Path, **content: Any) -> None:
    """Write result.json whole: a reader never sees half of it.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    path = folder / "result.json"
    try:
        with replacing(path) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from error


def read_result(folder: Path) -> dict[str, Any]:
    """Return what result.json says; nothing if the run has not written one."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def environment(device: torch.device) -> dict[str, str | int]:
    """Return what a reader needs to run this again: command, versions, machine, revision."""
    from flowtrain import __version__

    on_gpu = device.type == "cuda"
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "flowtrain": __version__,
        "revision": _revision(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 0,
        "peak_memory_mib": _peak_memory(device),
    }


def describe(metrics: dict[str, float]) -> str:
    """Say in a few words how good a model is."""
    pool = "test" if "nll/test" in metrics else "val"
    nll = f"NLL {metrics[f'nll/{pool}']:.4f}"
    if "kl/test" in metrics:
        return f"{nll}  KL {metrics['kl/test']:.4f} nats"
    if "kl/val" in metrics:
        return f"{nll}  KL {metrics['kl/val']:.4f} ± {metrics['kl_error/val']:.4f} nats"
    return f"{nll} ± {metrics[f'nll_error/{pool}']:.4f} nats"


def closing_table(
    config: Config, folder: Path, progress: Progress, *, parameters: int
) -> Iterator[str]:
    """Yield the lines that end a run: its figures, its folder and what to type next."""
    m = progress.metrics
    yield f"{config.model.name} on {config.data.name}, seed {config.seed}, in nats"
    rows = {}
    if "kl/test" in m:
        rows["KL(data | model)"] = (
            f"{m['kl/test']:.5f} by quadrature, error {m['kl_error/test']:.0e}"
        )
        paired = f"{m['kl_paired/test']:.5f} ± {m['kl_paired_error/test']:.5f}"
        rows["KL, paired samples"] = paired
    rows["NLL train, val, test"] = "{nll/train:.4f}, {nll/val:.4f}, {nll/test:.4f}".format_map(m)
    if "nll/entropy" in m:
        rows["entropy of the data"] = f"{m['nll/entropy']:.4f}: no NLL can be lower"
        rows["mass of the model"] = f"{m['mass/test']:.6f}: must be 1"
    else:
        rows["NLL test, error"] = f"{m['nll/test']:.4f} ± {m['nll_error/test']:.4f}"
        rows["  best Gaussian"] = f"{m['nll_gaussian/test']:.4f}"
        rows["  kernel density"] = f"{m['nll_kde/test']:.4f}, its bandwidth by cross-validation"
        if "bits_per_dimension/test" in m:
            rows["bits per dimension"] = f"{m['bits_per_dimension/test']:.4f}"
        for tag, name in DISTANCES.items():
            apart, floor = m[f"{tag}/test"], m[f"{tag}_floor/test"]
            rows[name] = f"{apart:.4f}; of the data to itself {floor:.4f}"
    rows |= {
        "inverse error": f"{m['inverse_error/test']:.1e} max, "
        f"{m['inverse_error_rms/test']:.1e} rms",
        "parameters": f"{parameters:,}",
        "steps": f"{progress.step:,} in {progress.seconds:.0f} s, best at {progress.best_step:,}",
        "run folder": str(folder),
        "curves, figures": f"tensorboard --logdir {folder}",
    }
    if "solver_gap/test" in m:
        rows["solver gap"] = f"{m['solver_gap/test']:+.1e}: NLL by training - evaluation solver"
    if progress.skipped:
        rows["skipped steps"] = f"{progress.skipped:,}"
    for name, value in rows.items():
        yield f"  {name:<22}{value}"


def doubts(metrics: dict[str, float]) -> Iterator[str]:
    """Yield a warning for every figure that cannot be true."""
    kl, error = metrics.get("kl/test", 0.0), metrics.get("kl_error/test", 0.0)
    if kl < -max(3 * error, 1e-3):
        yield f"KL is {kl:.4f}, below zero: this likelihood is wrong, not good"
    gap = metrics.get("solver_gap/test", metrics.get("solver_gap/val", 0.0))
    if abs(gap) > 0.01:
        yield (
            f"the training solver reads NLL {gap:+.4f} nats off the evaluation solver: "
            "the model exploits its solver; train with a tighter one"
        )
    baselines = [metrics[tag] for tag in ("nll_gaussian/test", "nll_kde/test") if tag in metrics]
    if baselines and metrics["nll/test"] > min(baselines):
        yield "a Gaussian or a kernel density estimate beats this flow on held-out points"
    mass = metrics.get("mass/test", 1.0)
    if mass > 1.01:
        yield f"the model's density integrates to {mass:.4f}: it is no density"
    if mass < 0.99:
        yield f"{1 - mass:.1%} of the model's mass lies outside the data's window"


def _peak_memory(device: torch.device) -> int:
    """Return the most memory this process has held, the device's own where it keeps count."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


@cache
def _revision() -> str:
    """Return the git revision of the source, if it is a checkout."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
