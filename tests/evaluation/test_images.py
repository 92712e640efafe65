"""Rendered figures, and the files that they are written to."""

import sys
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from flowtrain.errors import UserError
from flowtrain.evaluation.images import (
    GIF_MILLISECONDS,
    Image,
    pixels,
    save_figure,
    save_gif,
    save_mp4,
    save_png,
)


def test_a_figure_is_rendered_to_its_size_in_bytes() -> None:
    figure = Figure(figsize=(3, 2), facecolor="red")
    image = pixels(figure, dpi=50)
    assert (image.shape, image.dtype) == ((100, 150, 3), np.uint8)
    assert (image == [255, 0, 0]).all()
    assert pixels(figure).shape == (200, 300, 3)


@pytest.fixture
def frames() -> list[Image]:
    """Return three grey pictures with odd sides."""
    return [np.full((41, 63, 3), level, dtype=np.uint8) for level in (20, 120, 220)]


def test_a_png_keeps_every_pixel_and_makes_its_folder(frames: list[Image], tmp_path: Path) -> None:
    image = frames[0].copy()
    image[5, 7] = [1, 2, 3]
    save_png(image, tmp_path / "figures" / "one.png")
    with PIL.Image.open(tmp_path / "figures" / "one.png") as written:
        assert written.size == image.shape[1::-1]
        assert (np.asarray(written) == image).all()


def test_a_gif_runs_for_ever_and_rests_at_its_end(frames: list[Image], tmp_path: Path) -> None:
    save_gif(iter(frames), tmp_path / "figures" / "flow.gif")
    with PIL.Image.open(tmp_path / "figures" / "flow.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 3
        assert gif.info["loop"] == 0  # for ever
        durations = []
        for index in range(3):
            gif.seek(index)
            durations.append(gif.info["duration"])
    assert durations == [GIF_MILLISECONDS, GIF_MILLISECONDS, 20 * GIF_MILLISECONDS]


def test_an_mp4_shows_every_frame_and_rests_at_its_end(frames: list[Image], tmp_path: Path) -> None:
    save_mp4(iter(frames), tmp_path / "flow.mp4")
    with av.open(str(tmp_path / "flow.mp4")) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(shown) == 3 + 20
    assert {frame.shape for frame in shown} == {(40, 62, 3)}  # its sides are even
    assert [float(frame.mean()) for frame in shown[:3]] == pytest.approx([20, 120, 220], abs=6)
    assert float(shown[-1].mean()) == pytest.approx(220, abs=6)


def test_an_mp4_without_its_package_says_what_to_install(
    frames: list[Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'flowtrain\[mp4\]', or write a \.gif"):
        save_mp4(frames, tmp_path / "flow.mp4")


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_the_same_figure_is_the_same_file(suffix: str) -> None:
    def saved() -> bytes:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([0, 1], label="curve")
        save_figure(figure, file := BytesIO(), suffix, dpi=50)
        return file.getvalue()

    assert saved() == saved()
