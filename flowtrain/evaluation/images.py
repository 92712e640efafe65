"""Figures rendered to pixels, and pixels written as PNG, GIF and MP4."""

import warnings
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowtrain.errors import UserError
from flowtrain.files import replacing

Image = np.ndarray[Any, Any]

GIF_MILLISECONDS = 60  # a frame's


def pixels(figure: Figure, *, dpi: float = 100) -> Image:
    """Render a figure to (height, width, 3) bytes.

    >>> from matplotlib.figure import Figure
    >>> pixels(Figure(figsize=(2, 1)), dpi=50).shape
    (50, 100, 3)
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name's letter that the font has not: a box
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save_png(image: Image, path: Path) -> None:
    """Write rendered pixels, (height, width, 3) bytes, as a PNG.

    >>> from matplotlib.figure import Figure
    >>> image = pixels(Figure(figsize=(2, 1)))
    >>> save_png(image, tmp_path / "figure.png")
    >>> (tmp_path / "figure.png").read_bytes()[1:4]
    b'PNG'
    """
    with replacing(path) as file:
        PIL.Image.fromarray(image).save(file, format="PNG")


def save_figure(figure: Figure, file: BinaryIO, suffix: str, *, dpi: int) -> None:
    """Write a figure as a suffix says: .png, or .pdf and .svg, whose lines and letters stay such.

    Args:
        figure: to write.
        file: open for writing.
        suffix: .png, .pdf or .svg.
        dpi: dots per inch, of a PNG and of the pictures within the others.

    >>> from matplotlib.figure import Figure
    >>> from io import BytesIO
    >>> save_figure(Figure(figsize=(2, 1)), file := BytesIO(), ".pdf", dpi=300)
    >>> file.getvalue()[:4]
    b'%PDF'
    """
    kind = suffix.lower().removeprefix(".")
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    # Letters stay letters, and the same figure is the same file.
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "flowtrain"}):
        figure.savefig(file, format=kind, dpi=dpi, metadata=undated)


def save_gif(images: Iterable[Image], path: Path) -> None:
    """Write rendered pixels as an endless GIF that rests at its end.

    Args:
        images: each (height, width, 3) bytes, of one size.
        path: of the file; its folder is made where it is missing.

    >>> from matplotlib.figure import Figure
    >>> image = pixels(Figure(figsize=(2, 1)))
    >>> save_gif([image, 255 - image], tmp_path / "flow.gif")
    >>> (tmp_path / "flow.gif").read_bytes()[:6]
    b'GIF89a'
    """
    first, *rest = (PIL.Image.fromarray(image).quantize(128) for image in images)
    durations = [GIF_MILLISECONDS] * len(rest) + [20 * GIF_MILLISECONDS]
    with replacing(path) as file:
        first.save(
            file, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0
        )


def save_mp4(images: Iterable[Image], path: Path) -> None:
    """Write rendered pixels as an H.264 video, as fast as the GIF, that rests at its end.

    Args:
        images: each (height, width, 3) bytes, of one size; an odd side loses its last pixel.
        path: of the file; its folder must be there.

    Raises:
        UserError: PyAV is not installed.

    >>> from matplotlib.figure import Figure
    >>> image = pixels(Figure(figsize=(2, 1)))
    >>> save_mp4([image, 255 - image], tmp_path / "flow.mp4")
    >>> (tmp_path / "flow.mp4").read_bytes()[4:8]
    b'ftyp'
    """
    try:
        import av
    except ImportError:
        raise UserError("MP4 needs PyAV: pip install 'flowtrain[mp4]', or write a .gif") from None
    frames = list(images)
    frames += [frames[-1]] * 20
    height, width = (side - side % 2 for side in frames[0].shape[:2])  # its colors go by 2 x 2
    with av.open(str(path), "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=Fraction(1000, GIF_MILLISECONDS))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            pixels = np.ascontiguousarray(frame[:height, :width])
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())
