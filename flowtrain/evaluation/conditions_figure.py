"""The figure of a conditional flow: p(x | c) beside the truth, in small multiples over c."""

import torch
from matplotlib.figure import Figure

from flowtrain.densities.conditional import Conditional
from flowtrain.evaluation.panels import (
    density_on_grid,
    draw_density,
    histogram,
    model_density,
    write_title,
)
from flowtrain.flows.flow import Flow
from flowtrain.text import for_figure

SHOWN = 8  # conditions, evenly spaced where there are more
POINTS = 10_000  # of the samples at each
INCHES = 2.0  # of a panel's height
NARROWEST, WIDEST = 0.6, 1.8  # of a panel, in heights; between them, x and y have one scale


def conditions_figure(
    flow: Flow,
    law: Conditional,
    *,
    title: str,
    generator: torch.Generator,
    batch_size: int,
    side: int,
) -> Figure:
    """Draw the exact density, the model's and samples of it, a column for each condition.

    All panels have one window; a column has one color scale.

    Args:
        flow: the model, q(x | c).
        law: what it learns, p(x | c).
        title: a line above the panels.
        generator: draws the samples.
        batch_size: rows evaluated at a time.
        side: points at which the densities are evaluated, per axis.

    >>> from flowtrain.densities import Rings
    >>> from flowtrain.densities.conditional import Components
    >>> from flowtrain.flows import Standardize
    >>> from flowtrain.flows.linear import affine
    >>> generator, unit = torch.Generator(), Standardize(torch.zeros(2), torch.ones(2))
    >>> figure = conditions_figure(
    ...     affine(unit, generator=generator, context_dim=2),
    ...     Components(Rings(radii=[1.0, 2.0], noise=0.1)),
    ...     title="demo", generator=generator, batch_size=4096, side=16)
    >>> [axis.get_title() for axis in figure.axes]
    ['component=0', 'component=1', '', '', '', '']
    """
    cases = law.cases
    count = min(len(cases), SHOWN)
    shown = [cases[(2 * place + 1) * len(cases) // (2 * count)] for place in range(count)]
    (x0, y0), (x1, y1) = (corner.tolist() for corner in law.window)
    extent = (x0, x1, y0, y1)
    rows = ("exact", "model", "samples")
    wide = INCHES * min(WIDEST, max(NARROWEST, (x1 - x0) / (y1 - y0)))
    figure = Figure(figsize=(wide * count + 0.4, INCHES * len(rows) + 0.5), layout="constrained")
    write_title(figure, title)
    axes = figure.subplots(len(rows), count, squeeze=False)
    like = torch.empty(0, dtype=torch.float64)
    for column, case in zip(axes.T, shown, strict=True):
        given = flow.given(case.context.to(flow.device, flow.dtype))
        exact = density_on_grid(case.density.log_prob, extent, side, like, side**2)
        samples = given.sample(POINTS, generator)
        images = (exact, model_density(given, extent, side, batch_size), histogram(samples, extent))
        for axis, image in zip(column, images, strict=True):
            draw_density(axis, image, extent, float(exact.max()))
            axis.set(xticks=[], yticks=[], aspect="auto")
        column[0].set_title(for_figure(case.label), fontsize=9)
    for axis, name in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(name, fontsize=10)
    return figure
