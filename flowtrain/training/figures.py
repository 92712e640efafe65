"""Which figures a run draws, and where they go. matplotlib is loaded only when one is drawn."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.progress import doing, done
from flowtrain.training.report import headline
from flowtrain.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowtrain.evaluation.images import Image

FRAMES = 31  # of an animation


def draw(run: Run, name: str, *, step: int) -> dict[str, "Image"]:
    """Draw densities and samples, a continuous flow's paths, or a table's marginals.

    They go into figures/<kind>-<name>.png.
    """
    from flowtrain.evaluation import figures, images

    config, progress, density = run.config, run.state.progress, run.density
    flow, val = run.state.eval_flow, run.splits.val
    title = f"{config.model.name} on {config.data.name}, step {step}: "
    title += headline(progress.metrics)
    z = flow.sample_base(len(val.x), torch.Generator(run.device).manual_seed(config.seed))
    with torch.no_grad():
        samples = flow.to_data(z.to(flow.points_dtype))
    wanted: dict[str, Callable[[], Figure]] = {}
    if density is None:
        wanted["marginals"] = partial(
            figures.marginals_figure, val.x, samples, val.columns, title=title
        )
    else:
        rows = config.evaluation.batch_size
        wanted["density"] = partial(
            figures.density_figure, flow, density, val.x, samples, title=title, batch_size=rows
        )
        if isinstance(flow, ContinuousFlow):
            wanted["paths"] = partial(figures.path_figure, flow, density, z[:2000], title=title)
    rendered = {}
    for number, (kind, figure) in enumerate(wanted.items(), start=1):
        with doing(f"figure {number} of {len(wanted)}, {kind}"):
            rendered[kind] = images.pixels(figure())
            images.save_png(rendered[kind], run.folder.figure(f"{kind}-{name}.png"))
    return rendered


def animate(run: Run) -> None:
    """Write figures/flow.gif: samples and density on their way from base to data."""
    from flowtrain.evaluation import figures, images

    flow = run.state.eval_flow
    assert isinstance(flow, ContinuousFlow)
    assert run.density is not None
    z = flow.sample_base(2000, torch.Generator(run.device).manual_seed(run.config.seed))
    frames = figures.animation(
        flow, run.density, z, frames=FRAMES, batch_size=run.config.evaluation.batch_size
    )

    def told() -> Iterator["Image"]:
        for number, frame in enumerate(frames, start=1):
            done(number / FRAMES, f"frame {number} of {FRAMES}")
            yield frame

    images.save_gif(told(), run.folder.figure("flow.gif"))
