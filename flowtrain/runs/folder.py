"""Every path inside a run folder, once."""

from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from flowtrain.errors import CheckpointError

SWEEP = "sweep.json"  # what a sweep records of itself, in the folder around its jobs


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it writes.

    Args:
        path: the folder, whether it exists or not.

    >>> RunFolder(Path("outputs/demo")).checkpoint("best").as_posix()
    'outputs/demo/checkpoints/best.pt'
    """

    path: Path

    @property
    def result(self) -> Path:
        """How the run ended, with its config."""
        return self.path / "result.json"

    @property
    def metrics(self) -> Path:
        """Every scalar, a line for each time it was logged."""
        return self.path / "metrics.jsonl"

    @property
    def logger(self) -> Path:
        """The run's id with a service that shows it, by the logger's name."""
        return self.path / "logger.json"

    @property
    def composed(self) -> Path:
        """The config as Hydra composed it; of a job that never began it is all there is."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def overrides(self) -> Path:
        """The overrides that were typed, as Hydra recorded them; none of a run from Python."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def log(self) -> Path:
        """What the run said, and when."""
        return self.path / "flowtrain.log"

    @property
    def points(self) -> Path:
        """The points in memory that a run was given."""
        return self.path / "points.npz"

    def refuse_links(self) -> None:
        """Refuse a folder in which a link stands where a run writes: it writes only inside.

        Raises:
            CheckpointError: names the link.

        >>> (tmp_path / "metrics.jsonl").symlink_to("/etc/hosts")
        >>> try:
        ...     RunFolder(tmp_path).refuse_links()
        ... except CheckpointError as error:
        ...     str(error).removeprefix(str(tmp_path))
        '/metrics.jsonl: refused: it is a link, and a run writes only inside its folder'
        """
        written = (self.log, self.metrics, self.result, self.composed.parent)
        below = (self.checkpoint("last").parent, self.figure(""), *self.path.glob("replica-*"))
        for path in (*written, *below):
            if path.is_symlink():
                raise CheckpointError(
                    f"{path}: refused: it is a link, and a run writes only inside its folder"
                )

    def checkpoint(self, name: str) -> Path:
        """The checkpoint `best` or `last`."""
        return self.path / "checkpoints" / f"{name}.pt"

    def figure(self, name: str) -> Path:
        """A picture, by its file's name."""
        return self.path / "figures" / name

    def replica(self, number: int) -> "RunFolder":
        """The folder of a replica, a run of its own, whether it exists or not."""
        return RunFolder(self.path / f"replica-{number}")

    @property
    def replicas(self) -> list["RunFolder"]:
        """The folders of the replicas that are there; none of a run of a single seed.

        None either as long as no replica has a checkpoint: what failed at its start is no run.

        >>> RunFolder(run_folder).replicas
        []
        """
        numbered = (self.replica(number) for number in count())
        found = list(takewhile(lambda each: each.path.is_dir(), numbered))
        files = (each.checkpoint(name) for each in found for name in ("last", "best"))
        return found if any(file.exists() for file in files) else []

    @property
    def sweep(self) -> Path:
        """What the folder around it records of a sweep, if the run is a job of one."""
        return self.path.absolute().parent / SWEEP

    @property
    def started(self) -> bool:
        """Whether a run was started in it, however far it came.

        >>> RunFolder(run_folder).started, RunFolder(tmp_path).started
        (True, False)
        """
        return self.result.exists() or self.composed.parent.is_dir()

    @property
    def begun(self) -> bool:
        """Whether it holds a run, or replicas, to go on with."""
        return self.checkpoint("last").exists() or bool(self.replicas)
