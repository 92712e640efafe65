"""outputs/latest: a link to the run or the sweep that started last."""

import os
from contextlib import suppress
from pathlib import Path

LINK = Path("outputs/latest")


def point_to(folder: Path, link: Path = LINK) -> None:
    """Make `link` point to a run or a sweep that starts, if both are in one folder of outputs.

    The link is relative, so that outputs may be moved. What stands in its place and is no link
    stays. A file system without links is no reason to fail.

    >>> run = tmp_path / "outputs" / "2026-01-31" / "12-00-00-ffjord-moons"
    >>> run.mkdir(parents=True)
    >>> point_to(run, tmp_path / "outputs" / "latest")
    >>> (tmp_path / "outputs" / "latest").readlink().as_posix()
    '2026-01-31/12-00-00-ffjord-moons'
    """
    outputs, target = link.parent.resolve(), folder.resolve()
    if outputs not in target.parents or (os.path.lexists(link) and not link.is_symlink()):
        return
    draft = link.with_name(f".{link.name}-{os.getpid()}")
    with suppress(OSError, NotImplementedError):
        try:
            draft.symlink_to(os.path.relpath(target, outputs), target_is_directory=True)
            draft.replace(link)
        finally:
            draft.unlink(missing_ok=True)


def followed(path: str) -> str:
    """Return a path that leads through a link `latest` as it is without: the link may move on.

    >>> (tmp_path / "run").mkdir()
    >>> (tmp_path / "latest").symlink_to("run")
    >>> followed(f"{tmp_path}/latest/figures") == f"{tmp_path}/run/figures"
    True
    >>> followed("outputs/2026-01-31")
    'outputs/2026-01-31'
    """
    whole = Path(path)
    for place in (whole, *whole.parents):
        if place.name == LINK.name and place.is_symlink():
            return str(place.parent / place.readlink() / whole.relative_to(place))
    return path
