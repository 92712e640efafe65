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

import flowtrain
from flowtrain import plots
from flowtrain.build import build_density
from flowtrain.checkpoint import read
from flowtrain.config import validate

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


@dataclass(frozen=True)
class Row:
    """A recipe and what its finished runs found."""

    density: str
    model: str
    results: list[dict[str, Any]]

    def mean(self, tag: str) -> float:
        """Return the mean of a metric over the seeds."""
        return float(statistics.mean(result["metrics"][tag] for result in self.results))

    @property
    def seconds(self) -> float:
        """The mean time of training, its evaluations and pictures included."""
        return float(statistics.mean(result["seconds"] for result in self.results))


def main() -> None:
    """Train what is missing, rewriting the table after every run; draw the gallery at the end."""
    jobs = [
        (seed, density, model)
        for model in MODELS
        for density in DENSITIES
        for seed in SEEDS.get(model, (0,))
    ]
    for seed, density, model in sorted(jobs, key=lambda job: job[0]):  # a whole table first
        if train(density, model, seed):
            write_table(finished_rows())
    rows = finished_rows()
    write_table(rows)
    draw_gallery(rows)


def run_folder(density: str, model: str, seed: int) -> Path:
    """Return where a seed of a recipe is trained."""
    return FOLDER / f"{density}_{model}" / f"seed-{seed}"


def train(density: str, model: str, seed: int) -> bool:
    """Train a recipe with a seed; return whether there was anything to do."""
    folder = run_folder(density, model, seed)
    if finished(folder) is not None:
        return False
    command = [f"experiment={density}_{model}", f"seed={seed}", f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "flowtrain.cli", *command], check=True)
    return True


def finished(folder: Path) -> dict[str, Any] | None:
    """Return a run's result.json if the run completed."""
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return result if result.get("status") == "completed" else None


def finished_rows() -> list[Row]:
    """Return the rows all of whose seeds have finished."""
    rows = []
    for density in DENSITIES:
        for model in MODELS:
            seeds = SEEDS.get(model, (0,))
            results = [finished(run_folder(density, model, seed)) for seed in seeds]
            whole = [result for result in results if result is not None]
            if len(whole) == len(seeds):
                rows.append(Row(density, model, whole))
    return rows


def write_table(rows: list[Row]) -> None:
    """Replace what stands between the markers in the README."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = ["", *overview(rows), "", "<details><summary>Every row</summary>", "", *details(rows)]
    README.write_text(
        "\n".join([before + BEGIN, *lines, "", "</details>", "", END + after]), encoding="utf-8"
    )


def overview(rows: list[Row]) -> list[str]:
    """Return the table of KL by density and model, with the seconds, the best in bold."""
    lines = [
        "| KL in nats (seconds) | " + " | ".join(MODELS.values()) + " |",
        "|---|" + "--:|" * len(MODELS),
    ]
    for density in DENSITIES:
        there = {row.model: row for row in rows if row.density == density}
        cells = []
        for model in MODELS:
            cell = "…"
            if model in there:
                row = there[model]
                kl = f"{row.mean('kl/test'):.4f}"
                least = min(other.mean("kl/test") for other in there.values())
                if row.mean("kl/test") == least:
                    kl = f"**{kl}**"
                cell = f"{kl} ({row.seconds:.0f})"
            cells.append(cell)
        lines.append(f"| {density} | " + " | ".join(cells) + " |")
    return lines


def details(rows: list[Row]) -> list[str]:
    """Return the table of every row: figures, cost, and the command's own name for it."""
    lines = [
        "| `flowtrain experiment=` | entropy | KL, each seed | mass | inverse error | seconds "
        "| parameters |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        kls = " ".join(f"{result['metrics']['kl/test']:.4f}" for result in row.results)
        worst = max(result["metrics"]["inverse_error/test"] for result in row.results)
        lines.append(
            f"| `{row.density}_{row.model}` | {row.mean('nll/entropy'):.4f} | {kls} "
            f"| {row.mean('mass/test'):.4f} | {worst:.0e} | {row.seconds:.0f} "
            f"| {row.results[0]['parameters']:,} |"
        )
    return lines


def draw_gallery(rows: list[Row]) -> None:
    """Draw data, exact density and each model's density, a row for each density."""
    pictures = []
    for density in DENSITIES:
        there = [row for row in rows if row.density == density]
        if len(there) < len(MODELS):
            continue
        folders = {row.model: run_folder(density, row.model, 0) for row in there}
        law = build_density(validate(read_config(folders["best"])))
        flows = {MODELS[model]: flowtrain.load(folder) for model, folder in folders.items()}
        data = law.sample(50_000, torch.Generator().manual_seed(0))
        pictures.append((density, law, data, flows))
    plots.save_png(plots.pixels(plots.gallery_figure(pictures), dpi=60), GALLERY)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config that a run was trained with."""
    config: dict[str, Any] = read(folder / "checkpoints" / "best.pt")["config"]
    return config


if __name__ == "__main__":
    main()
