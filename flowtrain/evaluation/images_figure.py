"""The figure of points that are images: rows of the data's beside rows of samples, by class."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowtrain.evaluation.panels import write_title
from flowtrain.text import for_figure

COLUMNS = 10  # images of a row
GAP = 2  # pixels between images
INCHES = 0.46  # of an image's side, with the gap


def are_images(dim: int, levels: int | None) -> bool:
    """Return whether points are square images: pixels with grey levels, a square number of them.

    >>> are_images(64, levels=17), are_images(64, levels=None), are_images(2, levels=17)
    (True, False, False)
    """
    return levels is not None and math.isqrt(dim) ** 2 == dim


def images_figure(
    data: Sequence[Tensor], samples: Sequence[Tensor], labels: Sequence[str], *, title: str
) -> Figure:
    """Draw a row of the data's images and one of samples for each label, in one scale of greys.

    Args:
        data: for each label up to `COLUMNS` images, (n, side²) on [0, 1].
        samples: likewise, of the model.
        labels: beside the rows; empty ones say nothing.
        title: a line above.

    >>> x = torch.rand(3, 16, generator=torch.Generator().manual_seed(0))
    >>> figure = images_figure([x, x], [x, x], ["cats", "dogs"], title="demo")
    >>> [axes.get_title() for axes in figure.axes]
    ['data', 'samples']
    """
    height = INCHES * len(labels) + 0.7
    figure = Figure(figsize=(2 * INCHES * COLUMNS + 0.9, height), layout="constrained")
    write_title(figure, title)
    left, right = figure.subplots(1, 2)
    for axes, name, rows in ((left, "data", data), (right, "samples", samples)):
        _draw(axes, rows)
        axes.set_title(name, fontsize=10)
    side = math.isqrt(data[0].shape[1])
    middles = [(side + GAP) * row + side / 2 - 0.5 for row in range(len(labels))]
    left.set_yticks(middles, [for_figure(label) for label in labels], fontsize=9)
    left.tick_params(length=0)
    return figure


def _draw(axes: Axes, rows: Sequence[Tensor]) -> None:
    """Draw rows of images as one; where a row has fewer, its end stays empty."""
    side = math.isqrt(rows[0].shape[1])
    mosaic = np.full((len(rows), COLUMNS, side + GAP, side + GAP), np.nan)
    for row, images in zip(mosaic, rows, strict=True):
        shown = images[:COLUMNS].double().cpu().numpy()
        row[: len(shown), :side, :side] = shown.reshape(-1, side, side)
    whole = np.concatenate(np.concatenate(mosaic, 1), 1)
    axes.imshow(whole, cmap="gray_r", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
