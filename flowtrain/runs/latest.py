"""latest: a link beside outputs/ to the run or the sweep that started last."""

import os
from contextlib import suppress
from pathlib import Path

NAME = "latest"
OUTPUTS = Path("outputs")


def point_to(folder: Path, outputs: Path = OUTPUTS) -> None:
    """Make the link `latest` beside `outputs` lead to a run or a sweep in it that starts.

    It stands beside the folder and not in it, for TensorBoard follows links: it would show the run
    twice. The link is relative, so that both may be moved. What has its name and is no link into
    `outputs` stays. A file system without links is no reason to fail.

    >>> run = tmp_path / "outputs" / "2026-01-31" / "12-00-00-ffjord-moons"
    >>> run.mkdir(parents=True)
    >>> point_to(run, tmp_path / "outputs")
    >>> (tmp_path / "latest").readlink().as_posix()
    'outputs/2026-01-31/12-00-00-ffjord-moons'
    """
    link, inside = outputs.with_name(NAME), outputs.resolve()
    if inside not in folder.resolve().parents:
        return
    if os.path.lexists(link) and not (link.is_symlink() and inside in link.resolve().parents):
        return
    draft = link.with_name(f".{link.name}-{os.getpid()}")
    with suppress(OSError, NotImplementedError):
        try:
            target = outputs.name / folder.resolve().relative_to(inside)
            draft.symlink_to(target, target_is_directory=True)
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
        if place.name == NAME and place.is_symlink():
            return str(place.parent / place.readlink() / whole.relative_to(place))
    return path
