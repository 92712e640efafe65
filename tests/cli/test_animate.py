"""`flowrun animate`: a GIF or an MP4."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


def test_an_animation_is_a_gif_in_the_run_s_folder_or_an_mp4(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    import av

    small = ("--frames", "2", "--points", "50", "--lines", "120")
    told = flowrun("animate", folders["ffjord"], *small)
    path = folders["ffjord"] / "figures" / "flow.gif"
    assert told.returncode == 0
    assert f"flowrun: wrote {path}: " in told.stderr
    assert ", best weights, of step 10, dopri5, rtol 0.0001, " in told.stderr
    with PIL.Image.open(path) as gif:
        assert getattr(gif, "n_frames", 1) == 2
        width, height = gif.size
    assert (width, height <= 120) == (213, True)
    path.unlink()
    flowrun("animate", folders["ffjord"], *small, "-o", "flow.mp4")
    with av.open(str(tmp_path / "flow.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 22  # it rests at its end
    assert frames[0].shape == (height - height % 2, 212, 3)
    assert frames[0].mean() > 100  # mostly white paper


def test_a_missing_pyav_is_told(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    told = flowrun("animate", folders["ffjord"], "-o", "flow.mp4")
    assert told.stderr == (
        "flowrun: MP4 needs PyAV: pip install 'flowtrain[mp4]', or write a .gif\n"
    )
    assert [*tmp_path.iterdir()] == []
