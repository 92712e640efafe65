"""The tables of results: trains every row that is missing, one at a time, and writes them down.

    make results
    make gallery

A row is a command of `flowtrain`, printed in its first column; docs/results.md holds all rows and
README.md an overview. Run folders are kept, so that an interrupted table goes on where it stopped;
a row that has no finished run here keeps what docs/results.md says of it. `gallery` trains the
first seed of the rows that docs/gallery.png shows, and draws it.
"""

import json
import re
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.evaluation.figures import PIXELS
from flowtrain.evaluation.images import pixels, save_png
from flowtrain.evaluation.panels import (
    density_on_grid,
    draw_density,
    extent_of,
    histogram,
    model_density,
)
from flowtrain.flows.flow import Flow
from flowtrain.runs.load import SavedRun, open_run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "outputs" / "results"
README, DETAILS = ROOT / "README.md", ROOT / "docs" / "results.md"
GALLERY = ROOT / "docs" / "gallery.png"
END = "<!-- end of table -->"

DENSITIES = (
    "moons", "circles", "pinwheel", "eight_gaussians", "swissroll", "two_spirals", "rings",
    "checkerboard",
)  # fmt: skip
# The overview's columns: a title, and what the command says beside the data.
RECIPES = {
    "affine": "model=affine",
    "planar": "model=planar",
    "RealNVP": "model=realnvp",
    "Glow": "model=glow",
    "MAF with splines": "model=maf_spline",
    "flow matching": "model=ffjord objective=flow_matching",
    "flow matching, then likelihood": "model=ffjord objective=flow_matching_then_likelihood",
    "best: spline couplings": "experiment=best",
}
# Its last one: p(x | c), which is another figure, of densities that are mixtures.
GIVEN = "experiment=best data.condition=component"
MIXTURES = ("moons", "circles", "pinwheel", "eight_gaussians", "two_spirals", "rings")
SEEDS = (0, 1, 2)
OF_EACH_SEED = (  # the others are of the first
    "model=realnvp",
    "model=glow",
    "model=maf_spline",
    "model=ffjord objective=flow_matching_then_likelihood",
    "experiment=best",
    GIVEN,
)
GRID = [f"data={density} {recipe}" for density in DENSITIES for recipe in RECIPES.values()]
CONDITIONAL = [f"data={density} {GIVEN}" for density in MIXTURES]
KNOWN = [*GRID, *CONDITIONAL, "experiment=swissroll_small"]  # rows with a KL
DIGITS = [
    *(
        f"data=sklearn data.name=digits model={model}"
        for model in ("realnvp", "spline", "maf_spline")
    ),
    "experiment=digits_ffjord",
]


def main() -> None:
    """Train what is missing, rewriting the tables after every run; draw the gallery at the end."""
    if sys.argv[1:] == ["gallery"]:
        for row in GRID:
            train(row, 0)
    else:
        jobs = [(seed, row) for row in (*KNOWN, *DIGITS) for seed in seeds_of(row)]
        for seed, row in sorted(jobs, key=lambda job: job[0]):  # a whole table first
            if train(row, seed):
                write_tables()
        write_tables()
    draw_gallery()


def seeds_of(row: str) -> tuple[int, ...]:
    """Return the seeds that a row is trained with."""
    return SEEDS if row.partition(" ")[2] in OF_EACH_SEED else SEEDS[:1]


def run_folder(row: str, seed: int) -> Path:
    """Return where a seed of a row is trained."""
    name = "-".join(setting.partition("=")[2] for setting in row.split())
    return FOLDER / name / f"seed-{seed}"


def train(row: str, seed: int) -> bool:
    """Train a row with a seed; return whether there was anything to do."""
    folder = run_folder(row, seed)
    if finished(folder) is not None:
        return False
    command = [*row.split(), f"seed={seed}", f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "flowtrain", *command], check=True)
    return True


def finished(folder: Path) -> dict[str, Any] | None:
    """Return a run's result.json if the run completed."""
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return result if result.get("status") == "completed" else None


def results_of(row: str) -> list[dict[str, Any]]:
    """Return what the runs of a row found, if all of them have finished; else nothing."""
    found = [finished(run_folder(row, seed)) for seed in seeds_of(row)]
    return [] if None in found else [result for result in found if result is not None]


def write_tables() -> None:
    """Rewrite the tables of docs/results.md, and the overview in README.md from them."""
    text = DETAILS.read_text(encoding="utf-8")
    known = {row: cells(row) or written(text, row) for row in KNOWN}
    digits = {row: digit_cells(row) or written(text, row) for row in DIGITS}
    text = with_table(text, "<!-- densities: by `make results` -->", table_lines(known))
    text = with_table(text, "<!-- digits: by `make results` -->", table_lines(digits))
    DETAILS.write_text(text, encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    text = with_table(text, "<!-- overview: by `make results` -->", overview(known))
    README.write_text(text, encoding="utf-8")


def with_table(text: str, begin: str, lines: list[str]) -> str:
    """Replace the rows of the table that begins at a marker; its header stays."""
    before, rest = text.split(begin)
    table, after = rest.split(END, 1)
    header = table.strip().splitlines()[:2]
    return before + begin + "\n\n" + "\n".join([*header, *lines]) + "\n\n" + END + after


def written(text: str, row: str) -> list[str]:
    """Return the cells that a document has for a row; none if it has no such row."""
    line = re.search(rf"^\| `flowtrain {re.escape(row)}` \| (.*) \|$", text, re.MULTILINE)
    return line[1].split(" | ") if line else []


def table_lines(rows: dict[str, list[str]]) -> list[str]:
    """Return the lines of a table whose first column is the command that repeats a row."""
    return [table_line([f"`flowtrain {row}`", *each]) for row, each in rows.items() if each]


def cells(row: str) -> list[str]:
    """Return entropy, KL of each seed, mass, inverse error, seconds and parameters of a row."""
    results = results_of(row)
    if not results:
        return []
    metrics = [result["metrics"] for result in results]
    return [
        f"{metrics[0]['nll/entropy']:.4f}",
        " ".join(f"{each['kl/test']:.4f}" for each in metrics),
        f"{mean(metrics, 'mass/test'):.4f}",
        f"{max(each['inverse_error/test'] for each in metrics):.0e}",
        f"{mean(results, 'seconds'):.0f}",
        f"{results[0]['parameters']:,}",
    ]


def digit_cells(row: str) -> list[str]:
    """Return the held-out NLL of the digits beside its baselines, and what it cost."""
    results = results_of(row)
    if not results:
        return []
    metrics = [result["metrics"] for result in results]
    return [
        f"{mean(metrics, 'nll/test'):.1f} ± {mean(metrics, 'nll_error/test'):.1f}",
        f"{mean(metrics, 'nll_gaussian/test'):.1f}",
        f"{mean(metrics, 'nll_kde/test'):.1f}",
        f"{mean(metrics, 'bits_per_dimension/test'):.2f}",
        f"{mean(results, 'seconds'):.0f}",
        f"{results[0]['parameters']:,}",
    ]


def mean(results: list[dict[str, Any]], key: str) -> float:
    """Return the mean of a number over the seeds."""
    return float(statistics.mean(result[key] for result in results))


def overview(known: dict[str, list[str]]) -> list[str]:
    """Return the lines of KL by density and recipe, the best in bold."""
    lines = []
    for density in DENSITIES:
        rows = [known[f"data={density} {recipe}"] for recipe in RECIPES.values()]
        kls = [middle_kl(row) for row in rows]
        texts = [f"**{kl}**" if kl == min(kls) else kl for kl in kls]
        given = known.get(f"data={density} {GIVEN}")
        lines.append(table_line([density, *texts, middle_kl(given) if given else ""]))
    return lines


def table_line(cells: list[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"


def middle_kl(row: list[str]) -> str:
    """Return the median over the seeds of the KL in a row's cells; of none, three dots."""
    return f"{statistics.median(map(float, row[1].split())):.4f}" if row else "…"


def gallery_figure(
    rows: list[tuple[str, Density, Tensor, dict[str, Flow]]], *, batch_size: int
) -> Figure:
    """Draw a row for each density: its data, its exact density, and that of each flow.

    Args:
        rows: a name, the density, points of it, (n, 2), and flows that learned it, by name; the
            same names in every row.
        batch_size: rows evaluated at a time.
    """
    like = torch.empty(0, dtype=torch.float64)
    names = ["data", "exact", *rows[0][3]]
    figure = Figure(figsize=(2.2 * len(names), 2.2 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for line, (name, density, data, flows) in zip(axes, rows, strict=True):
        extent = extent_of(density, data)
        exact = density_on_grid(density.log_prob, extent, PIXELS, like, PIXELS**2)
        images = [histogram(data, extent), exact]
        images += [model_density(flow, extent, PIXELS, batch_size) for flow in flows.values()]
        for axis, image in zip(line, images, strict=True):
            draw_density(axis, image, extent, float(exact.max()))
            axis.set(xticks=[], yticks=[], aspect="auto")
        line[0].set_ylabel(name.replace("_", " "), fontsize=13)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(textwrap.fill(name, 16), fontsize=13)
    return figure


def draw_gallery() -> None:
    """Draw data, exact density and each recipe's density, a row for each density."""
    torch.set_num_threads(1)  # as runs do: on busy cores a second thread makes it ten times slower
    pictures = []
    for name in DENSITIES:
        runs: dict[str, SavedRun] = {
            title: open_run(run_folder(f"data={name} {recipe}", 0))
            for title, recipe in RECIPES.items()
        }
        density = next(iter(runs.values())).density
        assert density is not None
        flows: dict[str, Flow] = {title: run.flow for title, run in runs.items()}
        data = density.sample(50_000, torch.Generator().manual_seed(0))
        pictures.append((name, density, data, flows))
    save_png(pixels(gallery_figure(pictures, batch_size=2048), dpi=75), GALLERY)


if __name__ == "__main__":
    main()
