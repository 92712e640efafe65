"""The README's table of results and its gallery: trains every row that is missing, one at a time.

    make results

A row is a recipe of conf/experiment, `<density>_<model>`. Its run folders are kept, so that an
interrupted table goes on where it stopped; every figure comes from their result.json files.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flowtrain import plots
from flowtrain.runs import open_run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "outputs" / "results"
README = ROOT / "README.md"
GALLERY = ROOT / "docs" / "gallery.png"
BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"

DENSITIES = (
    "moons", "circles", "pinwheel", "eight_gaussians", "swissroll", "two_spirals", "rings",
    "checkerboard",
)  # fmt: skip
MODELS = {
    "affine": "affine",
    "realnvp": "RealNVP",
    "glow": "Glow",
    "flow_matching": "flow matching",
    "ffjord": "flow matching, then likelihood",
    "best": "best: spline couplings",
}
SEEDS = {"best": (0, 1, 2)}  # one seed for the others
SMALL = "swissroll_small"
DIGITS = ("digits_realnvp", "digits_ffjord")


@dataclass(frozen=True)
class Row:
    """A recipe and what its finished runs found."""

    experiment: str
    results: list[dict[str, Any]]

    def mean(self, tag: str) -> float:
        """Return the mean of a metric over the seeds."""
        return float(statistics.mean(result["metrics"][tag] for result in self.results))

    @property
    def seconds(self) -> float:
        """The mean time of training, its evaluations and pictures included."""
        return float(statistics.mean(result["seconds"] for result in self.results))

    @property
    def parameters(self) -> int:
        """The number of trained weights."""
        return int(self.results[0]["parameters"])


def main() -> None:
    """Train what is missing, rewriting the table after every run; draw the gallery at the end."""
    grid = [f"{density}_{model}" for model in MODELS for density in DENSITIES]
    jobs = [(seed, name) for name in (*grid, SMALL, *DIGITS) for seed in seeds_of(name)]
    for seed, name in sorted(jobs, key=lambda job: job[0]):  # a whole table first
        if train(name, seed):
            write_tables()
    write_tables()
    draw_gallery()


def seeds_of(experiment: str) -> tuple[int, ...]:
    """Return the seeds that a recipe is trained with."""
    return SEEDS.get(experiment.rpartition("_")[2], (0,))


def run_folder(experiment: str, seed: int) -> Path:
    """Return where a seed of a recipe is trained."""
    return FOLDER / experiment / f"seed-{seed}"


def train(experiment: str, seed: int) -> bool:
    """Train a recipe with a seed; return whether there was anything to do."""
    folder = run_folder(experiment, seed)
    if finished(folder) is not None:
        return False
    command = [f"experiment={experiment}", f"seed={seed}", f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "flowtrain.cli", *command], check=True)
    return True


def finished(folder: Path) -> dict[str, Any] | None:
    """Return a run's result.json if the run completed."""
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return result if result.get("status") == "completed" else None


def finished_row(experiment: str) -> Row | None:
    """Return a row all of whose seeds have finished."""
    seeds = seeds_of(experiment)
    results = [finished(run_folder(experiment, seed)) for seed in seeds]
    whole = [result for result in results if result is not None]
    return Row(experiment, whole) if len(whole) == len(seeds) else None


def write_tables() -> None:
    """Replace what stands between the markers in the README."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = [
        *["", *overview(), "", "<details><summary>Every row</summary>", "", *details()],
        *["", "</details>", "", *digits(), ""],
    ]
    README.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


def overview() -> list[str]:
    """Return the table of KL by density and model, with the seconds, the best in bold."""
    lines = [
        "| KL in nats (seconds) | " + " | ".join(MODELS.values()) + " |",
        "|---|" + "--:|" * len(MODELS),
    ]
    for density in DENSITIES:
        rows = [finished_row(f"{density}_{model}") for model in MODELS]
        least = min((row.mean("kl/test") for row in rows if row is not None), default=0.0)
        cells = []
        for row in rows:
            if row is None:
                cells.append("…")
                continue
            kl = f"{row.mean('kl/test'):.4f}"
            cells.append(
                f"{f'**{kl}**' if row.mean('kl/test') == least else kl} ({row.seconds:.0f})"
            )
        lines.append(f"| {density} | " + " | ".join(cells) + " |")
    return lines


def details() -> list[str]:
    """Return the table of every row: figures, cost, and the command's own name for it."""
    lines = [
        "| `flowtrain experiment=` | entropy | KL, each seed | mass | inverse error | seconds "
        "| parameters |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in (*(f"{density}_{model}" for density in DENSITIES for model in MODELS), SMALL):
        row = finished_row(name)
        if row is None:
            continue
        kls = " ".join(f"{result['metrics']['kl/test']:.4f}" for result in row.results)
        worst = max(result["metrics"]["inverse_error/test"] for result in row.results)
        lines.append(
            f"| `{name}` | {row.mean('nll/entropy'):.4f} | {kls} | {row.mean('mass/test'):.4f} "
            f"| {worst:.0e} | {row.seconds:.0f} | {row.parameters:,} |"
        )
    return lines


def digits() -> list[str]:
    """Return the table of the digits: held-out NLL beside its baselines."""
    lines = [
        "| `flowtrain experiment=` | held-out NLL (nats) | best Gaussian | kernel density "
        "| bits per dimension | seconds | parameters |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in DIGITS:
        row = finished_row(name)
        if row is None:
            continue
        lines.append(
            f"| `{name}` | {row.mean('nll/test'):.1f} ± {row.mean('nll_error/test'):.1f} "
            f"| {row.mean('nll_gaussian/test'):.1f} | {row.mean('nll_kde/test'):.1f} "
            f"| {row.mean('bits_per_dimension/test'):.2f} | {row.seconds:.0f} "
            f"| {row.parameters:,} |"
        )
    return lines


def draw_gallery() -> None:
    """Draw data, exact density and each model's density, a row for each density."""
    torch.set_num_threads(1)  # as runs do: on busy cores a second thread makes it ten times slower
    pictures = []
    for density in DENSITIES:
        runs = {MODELS[model]: open_run(run_folder(f"{density}_{model}", 0)) for model in MODELS}
        law = runs[MODELS["best"]].law()
        assert law is not None
        flows = {name: run.flow for name, run in runs.items()}
        data = law.sample(50_000, torch.Generator().manual_seed(0))
        pictures.append((density, law, data, flows))
    plots.save_png(plots.pixels(plots.gallery_figure(pictures, batch_size=2048), dpi=60), GALLERY)


if __name__ == "__main__":
    main()
