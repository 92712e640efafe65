"""Which figures a run draws, and where they go. matplotlib is loaded only when one is drawn."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from flowtrain.densities.conditional import Conditional
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow
from flowtrain.progress import doing, done
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_history
from flowtrain.training.report import figure_title
from flowtrain.training.run import Run

if TYPE_CHECKING:
    from flowtrain.evaluation.images import Image

DPI = 150
FRAMES = 31  # of an animation


def draw(run: Run, name: str, *, step: int) -> dict[str, "Image"]:
    """Draw densities and samples, a continuous flow's paths, or marginals of what is in no plane.

    They go into figures/<kind>-<name>.png.
    """
    title = figure_title(run.config, step, run.progress.metrics)
    return _draw(run, run.state.eval_flow, run.folder, name, title)


def draw_mixture(flow: Flow, run: Run, folder: RunFolder, title: str) -> None:
    """Draw the mixture of replicas beside what they learned, into figures/<kind>-final.png.

    Args:
        flow: the mixture.
        run: one of the replicas.
        folder: of the whole.
        title: a line above the panels.
    """
    _draw(run, flow, folder, "final", title)


def _draw(run: Run, flow: Flow, folder: RunFolder, name: str, title: str) -> dict[str, "Image"]:
    from flowtrain.evaluation import images, pictures

    config, data = run.config, run.splits.train if run.density is None else run.splits.val
    # The field is for `flowrun plot`; marginals repeat what a density on a line or a plane shows.
    names = pictures.names_of(flow, data)
    skipped = {"field", *(["marginals"] if config.data.known and len(names) > 1 else [])}
    kinds = [kind for kind in names if kind not in skipped]
    rendered = {}
    for number, kind in enumerate(kinds, start=1):
        with doing(f"figure {number} of {len(kinds)}, {kind}"):
            figure = pictures.draw(
                kind, flow, data, title=title, seed=config.seed,
                batch_size=config.evaluation.batch_size,
            )  # fmt: skip
            rendered[kind] = images.pixels(figure, dpi=DPI)
            images.save_png(rendered[kind], folder.figure(f"{kind}-{name}.png"))
    return rendered


def draw_curves(run: Run) -> None:
    """Write figures/curves-final.png: NLL and KL over the steps."""
    from flowtrain.evaluation import images
    from flowtrain.evaluation.learning import curves_figure

    progress = run.progress
    title = figure_title(run.config, progress.best_step, progress.metrics)
    figure = curves_figure(read_history(run.folder), title=title)
    images.save_png(images.pixels(figure, dpi=DPI), run.folder.figure("curves-final.png"))


def animate(run: Run) -> None:
    """Write figures/flow.gif: samples and density on their way from base to data."""
    from flowtrain.evaluation import images, motion

    flow = run.state.eval_flow
    assert isinstance(flow, ContinuousFlow)
    assert not isinstance(run.density, Conditional)  # the config has refused it
    z = flow.sample_base(2000, torch.Generator(run.device).manual_seed(run.config.seed))
    frames = motion.animation(
        flow, run.density, z, frames=FRAMES, batch_size=run.config.evaluation.batch_size
    )

    def told() -> Iterator["Image"]:
        for number, frame in enumerate(frames, start=1):
            done(number / FRAMES, f"frame {number} of {FRAMES}")
            yield frame

    images.save_gif(told(), run.folder.figure("flow.gif"))
