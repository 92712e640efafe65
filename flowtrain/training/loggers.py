"""Where else a run's scalars, figures and settings are shown: TensorBoard, CSV, W&B, MLflow.

A logger is made by its section with the run's folder, `step` (the last one that stands when a run
is resumed; -1 for a new run) and `kept` (the lines of metrics.jsonl that stand).
Failures of a service end no run: they are told once, and metrics.jsonl has every scalar.
"""

import csv
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from flowtrain.config.section import dotted
from flowtrain.errors import ConfigError, UserError
from flowtrain.evaluation.tags import board_tag
from flowtrain.files import appending, replacing
from flowtrain.runs.folder import RunFolder
from flowtrain.training import board
from flowtrain.untrusted import RECORD, open_regular, read_json

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("flowtrain")

Line = dict[str, Any]  # of metrics.jsonl: step, seconds, and scalars by tag; null is not finite


class Logger:
    """Shows a run's stream of scalars, figures and settings: this one nothing, others a part."""

    def __init__(self, folder: RunFolder, **_: Any) -> None:
        """Begin, or go on, with the run of a folder."""

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Show scalars by tag."""

    def picture(self, step: int, tag: str, image: "np.ndarray") -> None:
        """Show rendered pixels, (height, width, 3)."""

    def text(self, tag: str, content: dict[str, Any]) -> None:
        """Show nested settings: the config, the environment."""

    def summary(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Enter a completed run, with the metrics of its best weights, among others."""

    def close(self, *, failed: bool) -> None:
        """Write what is left."""


class Csv(Logger):
    """Scalars in metrics.csv, a line each: columns differ from line to line of metrics.jsonl."""

    def __init__(self, folder: RunFolder, *, kept: Sequence[Line], **_: Any) -> None:
        path = folder.path / "metrics.csv"
        with replacing(path) as file:
            file.write(b"step,seconds,tag,value\n")
        self.file = appending(path)
        for line in kept:
            values = {tag: math.nan if v is None else v for tag, v in line.items()}
            step, seconds = values.pop("step"), values.pop("seconds")
            self.scalars(int(step), seconds, values)

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        rows = ([step, round(seconds, 3), tag, value] for tag, value in values.items())
        csv.writer(self.file, lineterminator="\n").writerows(rows)
        self.file.flush()

    def close(self, *, failed: bool) -> None:
        self.file.close()


class TensorBoard(Logger):
    """Curves, figures, settings and hyperparameters as one event file in the run folder."""

    def __init__(self, folder: RunFolder, *, step: int, kept: Sequence[Line]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Flushed often: a short run is watched live, and a killed one keeps its curves.
        self.board = SummaryWriter(folder.path, purge_step=max(step, 0), flush_secs=5)
        self.folder = folder
        self.tags = {tag for line in kept for tag in line}
        self.charts: dict[str, list[str]] = {}
        if step >= 0:
            self._write_again(folder, step, kept)

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        for tag, value in values.items():
            self.board.add_scalar(board_tag(tag), value, step)
        self.tags |= values.keys()
        if (charts := board.charts(self.tags)) != self.charts:
            self.charts = charts
            self.board._get_file_writer().add_summary(board.layout_of(charts), step)

    def picture(self, step: int, tag: str, image: "np.ndarray") -> None:
        self.board.add_image(board_tag(tag), image, step, dataformats="HWC")

    def text(self, tag: str, content: dict[str, Any]) -> None:
        self.board.add_text(tag, f"```yaml\n{yaml.safe_dump(content, sort_keys=False)}\n```")

    def summary(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Enter the run in the HPARAMS tab, from its own event file."""
        for summary in board.trial(config, metrics, self.folder):
            self.board._get_file_writer().add_summary(summary)

    def close(self, *, failed: bool) -> None:
        self.board.close()

    def _write_again(self, folder: RunFolder, step: int, lines: Sequence[Line]) -> None:
        """Give TensorBoard back what stands of the step from which it was purged."""
        for line in lines:
            if line["step"] == step:
                for tag in line.keys() - {"step", "seconds"}:
                    if line[tag] is not None:
                        self.board.add_scalar(board_tag(tag), line[tag], step)
        for path in sorted(folder.figure("").glob(f"*-step-{step:06d}.png")):
            import numpy as np
            import PIL.Image

            kind = path.name.partition("-step-")[0]
            try:
                with open_regular(path, inside=folder.path, limit=RECORD) as file:
                    pixels = np.asarray(PIL.Image.open(file, formats=["PNG"]).convert("RGB"))
            except Exception as error:  # a damaged picture breaks Pillow in many ways
                log.warning("%s is left out of TensorBoard: %s", path, error)
                continue
            self.picture(step, f"figures/{kind}", pixels)


class WandB(Logger):
    """A run of Weights & Biases: curves over `step`, figures, the config and a summary.

    Its id is kept in logger.json, so that a resumed run goes on as the same one there. Offline,
    each start leaves a folder of that id in wandb/; `wandb sync` sends them in turn.

    Raises:
        ConfigError: the service refuses, an API key is missing for one.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        project: str,
        entity: str | None,
        group: str | None,
        mode: str,
        **_: Any,
    ) -> None:
        import wandb

        try:
            # Its console lines and settings of this machine are not the run's; `create_new` leaves
            # a caller's own run of wandb alone.
            self.run = wandb.init(
                project=project, entity=entity, group=group, mode=mode, name=folder.path.name,
                id=_known_id(folder, "wandb"), resume="allow", dir=folder.path,
                reinit="create_new",
                settings=wandb.Settings(console="off", silent=True),
            )  # fmt: skip
        except (wandb.Error, OSError) as error:
            raise ConfigError(
                f"logger: wandb: {_in_one_line(error)}; try `wandb login` or logger.mode=offline"
            ) from error
        self.image = wandb.Image
        _keep_id(folder, "wandb", self.run.id)
        self.run.define_metric("*", step_metric="step")
        if mode == "online":
            log.info("wandb: %s", self.run.url)

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        self.run.log({"step": step, "seconds": seconds, **values})

    def picture(self, step: int, tag: str, image: "np.ndarray") -> None:
        self.run.log({"step": step, tag: self.image(image)})

    def text(self, tag: str, content: dict[str, Any]) -> None:
        self.run.config.update(content if tag == "config" else {tag: content})

    def summary(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        self.run.summary.update(metrics)

    def close(self, *, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class MLflow(Logger):
    """A run of MLflow: metrics with their steps, parameters, figures and settings as artifacts.

    Its id is kept in logger.json, so that a resumed run goes on as the same one there.

    Raises:
        ConfigError: the store cannot be reached, or does not know the run.
    """

    def __init__(
        self, folder: RunFolder, *, experiment: str, tracking_uri: str | None, **_: Any
    ) -> None:
        from mlflow import MlflowClient

        self.status = "KILLED"
        try:
            self.client = MlflowClient(tracking_uri=tracking_uri)
            self.id = _known_id(folder, "mlflow")
            if self.id is None:
                found = self.client.get_experiment_by_name(experiment)
                number = found.experiment_id if found else self.client.create_experiment(experiment)
                self.id = self.client.create_run(number, run_name=folder.path.name).info.run_id
                _keep_id(folder, "mlflow", self.id)
            self.client.update_run(self.id, status="RUNNING")
        except Exception as error:  # of the store's own kind: SQL, HTTP, files
            raise ConfigError(
                f"logger: mlflow: {_in_one_line(error)}; see logger.tracking_uri"
            ) from error
        self.told = False

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Tell once that the store fails, and go on: the run itself has all in its folder."""
        try:
            yield
        except Exception as error:  # of the store's own kind: SQL, HTTP, files
            if not self.told:
                log.warning("mlflow: not all is logged there: %s", _in_one_line(error))
            self.told = True

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        with self._forgiving():
            self.client.log_batch(self.id, [Metric(tag, v, now, step) for tag, v in values.items()])

    def picture(self, step: int, tag: str, image: "np.ndarray") -> None:
        with self._forgiving():
            self.client.log_image(self.id, image, f"{tag}-step-{step:06d}.png")

    def text(self, tag: str, content: dict[str, Any]) -> None:
        from mlflow.entities import Param

        with self._forgiving():
            self.client.log_dict(self.id, content, f"{tag}.yaml")
            if tag == "config":
                params = [Param(key, str(value)) for key, value in dotted(content).items()]
                self.client.log_batch(self.id, params=params)

    def summary(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        self.status = "FINISHED"

    def close(self, *, failed: bool) -> None:
        with self._forgiving():
            self.client.set_terminated(self.id, "FAILED" if failed else self.status)


def _known_id(folder: RunFolder, logger: str) -> str | None:
    """Return the id that the run has with a service, if it has one."""
    return _known_ids(folder).get(logger)


def _keep_id(folder: RunFolder, logger: str, run_id: str) -> None:
    with replacing(folder.logger) as file:
        ids = {**_known_ids(folder), logger: run_id}
        file.write((json.dumps(ids) + "\n").encode())


def _known_ids(folder: RunFolder) -> dict[str, str]:
    try:
        ids = read_json(folder.logger, inside=folder.path)
    except (FileNotFoundError, UserError):
        return {}
    pairs = ids.items() if isinstance(ids, dict) else ()
    return {logger: run_id for logger, run_id in pairs if isinstance(run_id, str)}


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
