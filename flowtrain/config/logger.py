"""The group `logger`: where a run's scalars, figures and config are shown."""

import shlex
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flowtrain.config.section import Section, require_extra

Name = Annotated[str, Field(min_length=1)]


class Logger(Section):
    """The base of the group.

    Attributes:
        extra: the package it needs beyond flowtrain's own, an extra of the logger's name.

    >>> logger = TensorBoard(name="tensorboard")
    >>> logger.refuse_if_not_installed()
    >>> for line in logger.view(Path("outputs/demo")):
    ...     print(line)
    tensorboard --logdir outputs/demo
    its curves, not smoothed: http://localhost:6006/?smoothing=0
    """

    extra: ClassVar[str | None] = None
    name: str

    def refuse_if_not_installed(self) -> None:
        """Refuse a logger whose package is missing.

        Raises:
            ConfigError: with the command that installs it.
        """
        if self.extra is not None:
            require_extra(self.extra, chosen=f"logger={self.name}", extra=self.name)

    def view(self, folder: Path) -> list[str]:
        """Return what shows the run of a folder, in lines: a command to type, or a file."""
        return [str(folder / "metrics.jsonl")]


class NoLogger(Logger):
    owner: ClassVar[str] = "flowtrain.training.loggers:Logger"
    name: Literal["none"]


class TensorBoard(Logger):
    owner: ClassVar[str] = "flowtrain.training.loggers:TensorBoard"
    name: Literal["tensorboard"]

    def view(self, folder: Path) -> list[str]:
        # By default it smooths: of eight evaluations the last, 0.004, is shown as 0.019.
        address = "http://localhost:6006/?smoothing=0"
        shown = shlex.quote(str(folder))
        return [f"tensorboard --logdir {shown}", f"its curves, not smoothed: {address}"]


class Csv(Logger):
    owner: ClassVar[str] = "flowtrain.training.loggers:Csv"
    name: Literal["csv"]

    def view(self, folder: Path) -> list[str]:
        return [str(folder / "metrics.csv")]


class WandB(Logger):
    owner: ClassVar[str] = "flowtrain.training.loggers:WandB"
    extra: ClassVar[str | None] = "wandb"
    name: Literal["wandb"]
    project: Name
    entity: Name | None
    group: Name | None
    mode: Literal["online", "offline"]

    def view(self, folder: Path) -> list[str]:
        if self.mode == "offline":
            return [f"wandb sync {folder}/wandb/offline-run-*"]
        return [f"https://wandb.ai, project {self.project}"]


class MLflow(Logger):
    owner: ClassVar[str] = "flowtrain.training.loggers:MLflow"
    extra: ClassVar[str | None] = "mlflow"
    name: Literal["mlflow"]
    experiment: Name
    tracking_uri: Name | None

    def view(self, folder: Path) -> list[str]:
        store = "" if self.tracking_uri is None else f" --backend-store-uri {self.tracking_uri}"
        return [f"mlflow ui{store}, experiment {self.experiment}"]
