"""Held-out NLL of tables by flowtrain's defaults, the best Gaussian, and zuko's NSF and MAF.

    make tables-bench ARGS="--models spline realnvp --sets wine curved --seeds 0 1 2"

Every model sees the same rows: those of `flowtrain data=...`, dequantised, split anew by each seed.
zuko's flows have the library's defaults and standardised columns; they are trained by Adam at 1e-3
on batches of 256, evaluated every 50 steps, stopped after 10 evaluations without a better
validation NLL, or after a minute. Seconds are of the CPU, on one thread, of the flow of flowtrain
that took longest. Figures are means over the seeds ± their standard error, in nats. "Worst" is
the flow and seed that does worst against the best Gaussian of its own split: the difference of the
two NLLs in standard errors of the flow's. Below 1 no flow is worse than the Gaussian.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zuko

import flowtrain
from flowtrain.runs.load import open_run

FOLDER = Path("outputs/tables")
SKLEARN = ("iris", "wine", "breast_cancer", "diabetes", "digits")
PEERS = ("NSF", "MAF")
SECONDS = 60.0  # of the CPU, for a peer at most

Floats = np.ndarray
Generator = np.random.Generator


def curved(rng: Generator) -> Floats:
    """3 columns on a bent sheet, 2,000 rows."""
    a = rng.normal(size=2_000)
    b = a**2 + 0.3 * rng.normal(size=2_000)
    return np.stack([a, b, np.sin(2 * a) + 0.5 * b + 0.2 * rng.normal(size=2_000)], 1)


def mixed(rng: Generator) -> Floats:
    """20 columns of every kind that depend on 6 hidden ones, 3,000 rows."""
    n = 3_000

    def noise(columns: int = 1) -> Floats:
        return rng.normal(size=(n, columns))

    z = noise(6)
    linear = z @ (rng.normal(size=(6, 12)) / 2) + 0.5 * noise(12)
    columns = [
        linear[:, :5] * [1, 10, 0.1, 5, 1] + [0, 100, 0, 0, 3],
        np.exp(linear[:, 5:8]),
        linear[:, 8:9] ** 2 + 0.3 * noise(),
        np.where(linear[:, 9:10] > 0, 3, -3) + 0.7 * noise(),
        np.sin(2 * linear[:, 10:11]) + 0.2 * noise(),
        linear[:, 11:] * np.abs(z[:, :1]) + 0.2 * noise(),
        rng.poisson(np.exp(0.7 * z[:, 1:3] + 1)),
        z[:, 3:4] + 0.5 * noise() > 0.3,
        np.round(40 + 12 * z[:, 4:5] + 5 * noise()),
        rng.uniform(size=(n, 2)) * [1, 1_000],
        rng.gamma(2.0, size=(n, 2)) * np.exp(0.3 * z[:, 5:]),
    ]
    return np.asarray(np.concatenate(columns, 1))


def heavy(rng: Generator) -> Floats:
    """4 columns of a Student law of 2.5 degrees of freedom, one row in a hundred an outlier."""
    n = 2_000
    mix = np.array([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0.3, -0.5, 0.8, 0], [-0.6, 0, 0.2, 0.7]])
    x = rng.normal(size=(n, 4)) @ mix.T * np.sqrt(2.5 / rng.chisquare(2.5, size=(n, 1)))
    out = rng.random(n) < 0.01
    x[out] = 20 * x[out] + 30 * rng.normal(size=(out.sum(), 4))
    return np.asarray(x * [1, 50, 0.01, 3] + [0, 1_000, 5, -3])


MADE: dict[str, Callable[[Generator], Floats]] = {"curved": curved, "mixed": mixed, "heavy": heavy}


def main() -> None:
    """Train what is asked for and print a row for each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=[*SKLEARN, *MADE])
    parser.add_argument("--models", nargs="+", default=["spline", "realnvp", "affine"])
    parser.add_argument("--peers", nargs="*", default=PEERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ["gaussian", *options.models, *options.peers]
    header = ["set", *names, "worst", "seconds"]
    print("| " + " | ".join(header) + " |\n|---|" + "--:|" * (len(header) - 1))
    for name in options.sets:
        nll: dict[str, list[float]] = {each: [] for each in names}
        seconds: list[float] = []
        worst: list[float] = []
        for seed in options.seeds:
            for model in options.models:
                folder = FOLDER / f"{name}-{model}-{seed}"
                began = time.process_time()
                metrics = ours(name, model, seed, folder)
                seconds.append(time.process_time() - began)
                nll[model].append(metrics["nll/test"])
                beyond = metrics["nll/test"] - metrics["nll_gaussian/test"]
                worst.append(beyond / metrics["nll_error/test"])
            nll["gaussian"].append(metrics["nll_gaussian/test"])
            splits = open_run(folder).splits
            x = {key: getattr(splits, key).x.double() for key in ("train", "val", "test")}
            for peer in options.peers:
                nll[peer].append(theirs(peer, x, seed))
        cells = [mean_and_error(nll[each]) for each in names]
        cells += [f"{max(worst):.1f}", f"{max(seconds):.0f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def ours(name: str, model: str, seed: int, folder: Path) -> dict[str, float]:
    """Train a flow of flowtrain with its defaults; return its metrics."""
    data = ["data=sklearn", f"data.name={name}"]
    if name in MADE:
        path = (FOLDER / f"{name}.npy").absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, MADE[name](np.random.default_rng(0)))
        data = ["data=table", f"data.path={path}"]
    split = [f"seed={seed}", f"splits.seed={seed}", "trainer.figures=false", "logger=none"]
    asked = [f"model={model}", *data, *split]
    return flowtrain.train(asked, folder=folder, quiet=True).metrics


def theirs(peer: str, x: dict[str, torch.Tensor], seed: int) -> float:
    """Train a flow of zuko with its defaults; return the NLL of the test rows."""
    torch.manual_seed(seed)
    mean, std = x["train"].mean(0), x["train"].std(0)
    white = {key: ((rows - mean) / std).float() for key, rows in x.items()}
    flow = getattr(zuko.flows, peer)(len(mean))
    adam = torch.optim.Adam(flow.parameters(), lr=1e-3)

    @torch.no_grad()
    def nll(rows: torch.Tensor) -> float:
        return float(std.log().sum() - flow().log_prob(rows).double().mean())

    best, test, stale, began = math.inf, math.nan, 0, time.process_time()
    for step in range(10**6):
        if step % 50 == 0:
            found, stale = nll(white["val"]), stale + 1
            if found < best:
                best, test, stale = found, nll(white["test"]), 0
            if stale == 10 or time.process_time() - began > SECONDS:
                break
        adam.zero_grad()
        batch = white["train"][torch.randint(len(white["train"]), (256,))]
        (-flow().log_prob(batch).mean()).backward()
        adam.step()
    return test


def mean_and_error(values: list[float]) -> str:
    """Return mean ± standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
