"""KL(model | data) of samplers of few steps: flow matching, and what straightens its paths.

    make rectified

Trains every run that is missing, one at a time, measures each as `flowrun steps` does, and writes
the table of docs/rectified.md and docs/rectified.png. Run folders are kept, so that what was
interrupted goes on where it stopped; `make rectified ARGS="--seeds 0"` asks for fewer seeds.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from flowtrain.densities.density import Density
from flowtrain.evaluation.few_steps import FewSteps, few_steps
from flowtrain.evaluation.images import pixels, save_png
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.runs.load import open_run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "outputs" / "rectified"
PAGE, PICTURE = ROOT / "docs" / "rectified.md", ROOT / "docs" / "rectified.png"
DENSITIES = ("moons", "eight_gaussians")
STEPS = (1, 2, 4, 8, 16)
SAMPLES = 10_000
# How each is trained; a reflow learns from the run of the name in braces.
RECIPES = {
    "flow matching": "objective=flow_matching",
    "optimal transport": "objective=flow_matching objective.coupling=optimal_transport "
    "objective.targets=sample",
    "reflow once": "objective=reflow objective.teacher={flow matching}",
    "reflow twice": "objective=reflow objective.teacher={reflow once}",
}

Found = dict[tuple[str, str], list[list[FewSteps]]]  # by density and recipe: of each seed, of STEPS


def main() -> None:
    """Train what is missing, measure all of it, write the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    for seed in seeds:
        for density in DENSITIES:
            for recipe in RECIPES:
                train(density, recipe, seed)
    found = {
        (density, recipe): [measure(density, recipe, seed) for seed in seeds]
        for density in DENSITIES
        for recipe in RECIPES
    }
    write_table(found, seeds)
    save_png(pixels(picture(found), dpi=100), PICTURE)


def run_folder(density: str, recipe: str, seed: int) -> Path:
    """Return where a recipe is trained."""
    return FOLDER / f"{density}-{recipe.replace(' ', '-')}-{seed}"


def train(density: str, recipe: str, seed: int) -> None:
    """Train a recipe, unless it has been."""
    folder = run_folder(density, recipe, seed)
    result = folder / "result.json"
    if result.exists() and json.loads(result.read_text("utf-8"))["status"] == "completed":
        return
    settings = re.sub(
        "{(.*)}", lambda named: str(run_folder(density, named[1], seed)), RECIPES[recipe]
    )
    command = ["model=ffjord", *settings.split(), f"data={density}", f"seed={seed}"]
    subprocess.run(
        [sys.executable, "-m", "flowtrain", *command, f"hydra.run.dir={folder}"], check=True
    )


def measure(density: str, recipe: str, seed: int) -> list[FewSteps]:
    """Return the law of each number of Euler steps, from samples of seed 0."""
    run = open_run(run_folder(density, recipe, seed))
    assert isinstance(run.flow, ContinuousFlow)
    assert isinstance(run.density, Density)
    z = run.flow.sample_base(SAMPLES, torch.Generator().manual_seed(0))
    return [few_steps(run.flow, run.density, z, steps=n, method="euler") for n in STEPS]


def write_table(found: Found, seeds: Sequence[int]) -> None:
    """Rewrite the table of the page: the mean over seeds, and how many of the samples fold."""
    lines = []
    for (density, recipe), of_seeds in found.items():
        cells = [cell(each) for each in zip(*of_seeds, strict=True)]
        lines.append(f"| {density} | {recipe} | " + " | ".join(cells) + " |")
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- table: by `make rectified` -->", "<!-- end of table -->"
    before, rest = text.split(begin)
    table, after = rest.split(end, 1)
    header = table.strip().splitlines()[:2]
    told = f"*Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}.*"
    block = "\n".join([*header, *lines, "", told])
    PAGE.write_text(f"{before}{begin}\n\n{block}\n\n{end}{after}", encoding="utf-8")


def cell(seeds: Sequence[FewSteps]) -> str:
    """Return the mean KL over seeds; a lower bound where maps fold, with how many samples do."""
    mean = statistics.mean(each.metrics["kl_reverse"] for each in seeds)
    folded = statistics.mean(each.folded for each in seeds)
    part = f"{folded:.2%}" if folded >= 5e-5 else "< 0.01%"
    return f"≥ {mean:.3f} ({part})" if folded else f"{mean:.4f}"


def picture(found: Found) -> Figure:
    """Draw KL against evaluations, a panel for each density: means over seeds, and their range."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = dict(zip(DENSITIES, figure.subplots(1, len(DENSITIES), sharey=True), strict=True))
    for (density, recipe), of_seeds in found.items():
        kls = [
            [each.metrics["kl_reverse"] for each in seeds] for seeds in zip(*of_seeds, strict=True)
        ]
        (line,) = panels[density].plot(
            STEPS, [*map(statistics.mean, kls)], marker="o", label=recipe
        )
        panels[density].fill_between(
            STEPS, [*map(min, kls)], [*map(max, kls)], alpha=0.2, color=line.get_color()
        )
    for density, axis in panels.items():
        axis.set(title=density.replace("_", " "), xlabel="Euler steps, an evaluation each")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(STEPS, [*map(str, STEPS)])
        axis.grid(alpha=0.3)
    panels[DENSITIES[0]].set_ylabel("KL(model | data), nats")
    panels[DENSITIES[0]].legend()
    return figure


if __name__ == "__main__":
    main()
