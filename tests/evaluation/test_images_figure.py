"""The figure of images: each where it belongs, and nothing where there is none."""

import numpy as np
import torch

from flowtrain.evaluation.images_figure import COLUMNS, GAP, are_images, images_figure


def test_images_stand_in_the_rows_of_their_labels() -> None:
    images = torch.arange(24.0).reshape(2, 3, 4) / 24
    figure = images_figure([images[0], images[1, :1]], [images[1], images[0]], ["a", "b"], title="")
    left, right = figure.axes
    data, samples = (np.asarray(axes.images[0].get_array()) for axes in (left, right))
    pitch = 2 + GAP
    assert data.shape == samples.shape == (2 * pitch, COLUMNS * pitch)
    for column in range(3):
        cell = slice(pitch * column, pitch * column + 2)
        assert data[:2, cell].flatten().tolist() == images[0, column].tolist()
        assert samples[pitch : pitch + 2, cell].flatten().tolist() == images[0, column].tolist()
    assert np.isnan(data[pitch:, 2:]).all()
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a", "b"]


def test_only_squares_of_grey_levels_are_images() -> None:
    assert [are_images(dim, levels=17) for dim in (64, 1, 2, 63)] == [True, True, False, False]
    assert not are_images(64, levels=None)
