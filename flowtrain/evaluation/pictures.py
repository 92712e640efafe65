"""Which figures a run has, and each of them by its name: for a training and for `flowrun plot`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from matplotlib.figure import Figure

from flowtrain.batching import in_batches
from flowtrain.data.splits import Split
from flowtrain.densities.conditional import Conditional
from flowtrain.evaluation.conditions_figure import conditions_figure
from flowtrain.evaluation.figures import PIXELS, density_figure, marginals_figure
from flowtrain.evaluation.images_figure import COLUMNS, are_images, images_figure
from flowtrain.evaluation.line_figures import line_figure, line_paths_figure
from flowtrain.evaluation.motion import field_figure, path_figure
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow

POINTS = 50_000  # in a histogram, at most
WAYS = 2_000  # from base to data
CLASSES = 20  # that have a row of images each
ROWS = 5  # of images that have no class
FEW_ROWS = 5_000  # a table with fewer is set beside so many samples


def names_of(flow: Flow, data: Split) -> list[str]:
    """Return the names of the figures that a flow and its data have, the most telling first.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> names_of(run.flow, run.splits.val)
    ['density', 'paths', 'field', 'marginals']
    """
    images = ["images"] if are_images(flow.dim, data.levels) else []
    if flow.context_dim:  # one of p(x | c) at a single condition has the others
        planar = flow.dim == 2 and isinstance(data.density, Conditional)
        return [*images, "conditions" if planar else "marginals"]
    names = ["density"] if flow.dim <= 2 else []
    if isinstance(flow, ContinuousFlow):
        names += {1: ["paths"], 2: ["paths", "field"]}.get(flow.dim, [])
    of_rows = ["marginals", *names] if data.density is None else [*names, "marginals"]
    return [*images, *of_rows]


def draw(
    name: str,
    flow: Flow,
    data: Split,
    *,
    title: str,
    seed: int,
    batch_size: int,
    side: int = PIXELS,
    shown: Sequence[int] | None = None,
) -> Figure:
    """Draw a figure of a flow.

    Args:
        name: one of `names_of`.
        flow: the model.
        data: points of what it learned.
        title: a line above the panels.
        seed: of the samples.
        batch_size: rows at a time.
        side: points at which a density is evaluated, per axis.
        shown: positions of the columns of marginals.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> figure = draw("density", run.flow, run.splits.val, title="demo", seed=0, batch_size=4096)
    >>> len(figure.axes)
    5
    """
    generator = torch.Generator(flow.device).manual_seed(seed)
    data = data.first(POINTS)
    if name == "conditions":
        assert isinstance(data.density, Conditional)
        return conditions_figure(
            flow, data.density, title=title, generator=generator, batch_size=batch_size, side=side
        )
    x, density = data.x, None if isinstance(data.density, Conditional) else data.density
    if name in ("paths", "field"):
        assert isinstance(flow, ContinuousFlow)
        z = flow.sample_base(WAYS, generator)
        if name == "paths":
            drawn = line_paths_figure if flow.dim == 1 else path_figure
            return drawn(flow, density, z, title=title)
        return field_figure(flow, density, z, title=title, batch_size=batch_size)
    if name == "density":
        samples = _samples(flow, len(x) or POINTS, generator, batch_size, None)
        if flow.dim == 1:
            return line_figure(flow, density, x, samples, title=title, batch_size=batch_size)
        return density_figure(
            flow, density, x, samples, title=title, batch_size=batch_size, side=side
        )
    if name == "images":
        labels, rows = zip(*_rows_of_images(data), strict=True)
        images = [_samples(flow, len(each.x), generator, batch_size, each.context) for each in rows]
        return images_figure([each.x for each in rows], images, labels, title=title)
    n, context = max(len(x), FEW_ROWS), data.context
    if context is not None:  # the data's own, over and over
        context = context[torch.arange(n, device=context.device) % len(context)]
    samples = _samples(flow, n, generator, batch_size, context)
    columns = data.columns or [f"x{position}" for position in range(flow.dim)]
    return marginals_figure(x, samples, columns, title=title, shown=shown)


def _rows_of_images(data: Split) -> Iterator[tuple[str, Split]]:
    """Yield rows of points: some of each condition with its label, or of all without one."""
    context = data.context
    if context is None or data.condition is None:
        for x in data.x[: ROWS * COLUMNS].split(COLUMNS):
            yield "", replace(data, x=x)
        return
    kinds = context.unique(dim=0).flip(0)  # one-hot: in the order of the classes
    for kind in kinds[:CLASSES]:
        (own,) = (context == kind).all(1).nonzero(as_tuple=True)
        own = own[torch.arange(COLUMNS, device=own.device) % len(own)]
        yield data.condition.label(kind), replace(data, x=data.x[own], context=context[own])


def _samples(
    flow: Flow, n: int, generator: torch.Generator, batch_size: int, context: torch.Tensor | None
) -> torch.Tensor:
    z = flow.sample_base(n, generator).to(flow.points_dtype)
    return in_batches(flow.to_data, z, batch_size, context)
