"""What a Python user calls: `train` as the shell does, `fit` for points in memory."""

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from flowtrain.cli.compose import Composed, compose
from flowtrain.cli.log_file import LogFile
from flowtrain.cli.typed import checked
from flowtrain.data.frame import as_table, holds, save_points
from flowtrain.errors import ConfigError, UserError
from flowtrain.flows.flow import Flow
from flowtrain.live import console_lines, handling
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.load import load
from flowtrain.runs.lock import locked, owner
from flowtrain.text import for_hydra
from flowtrain.training.trainer import train as train_config

log = logging.getLogger("flowtrain")


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        metrics: of its best weights, by tag as in metrics.jsonl.
        folder: of the run; `flowrun` and `load` take it.
        flow: with its best weights on the validation points, on the CPU, in evaluation mode.

    >>> trained = Trained({"nll/test": 2.5}, Path("outputs/demo"), flow=None)
    >>> trained
    Trained(metrics={'nll/test': 2.5}, folder=PosixPath('outputs/demo'))
    """

    metrics: dict[str, float]
    folder: Path
    flow: Flow = field(repr=False)


def train(
    overrides: Sequence[str] = (), *, folder: str | Path | None = None, quiet: bool = False
) -> Trained:
    """Train as the command `flowtrain` does with the same words, into the same kind of folder.

    `train(["resume=FOLDER"])`, or a folder that holds a run of the same settings, goes on with that
    run. Ctrl-C in the main thread ends the run after the step or the evaluation, saved, and is then
    raised as KeyboardInterrupt; in other threads no signal is handled. Nothing of Hydra's or of
    torch's is left changed in the process. Call it once for each run of a sweep.

    Args:
        overrides: "group=option" and "key=value", as at the command line.
        folder: of the run; by default a new one below outputs/.
        quiet: print nothing; the log keeps its lines, in the folder's flowtrain.log too.

    Raises:
        UserError: in one message, what was wrong and what is allowed.

    >>> tiny = ["trainer=debug", "splits.train=512", "splits.val=64", "splits.test=64"]
    >>> tiny += ["model=affine", "data=rings", "trainer.figures=false", "evaluation.grid=16"]
    >>> trained = train(tiny, folder=tmp_path, quiet=True)
    >>> trained.flow.sample(5).shape, trained.metrics["kl/test"] > 0
    (torch.Size([5, 2]), True)
    """
    return _run(compose(overrides, folder=folder), quiet=quiet)


def fit(
    x: Any,
    *,
    context: Any = None,
    model: str = "spline",
    seconds: float | None = None,
    columns: Sequence[str | int] | None = None,
    folder: str | Path | None = None,
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> Trained:
    """Train a flow on points in memory; `log_prob` and `sample` of the flow are in their units.

    The points are kept in the run's folder as points.npz, so that the run can be evaluated again
    and resumed. A part of the rows is held out for validation and test, as `splits.val` and
    `splits.test` say.

    Args:
        x: rows of numbers, all finite: an array or a tensor (n, d) or (n,), on any device, or a
            data frame of pandas, polars or pyarrow.
        context: what each row is conditional on: labels or numbers (n,), several of them (n, k), a
            data frame, a series, or a dict of columns; text too. Then the flow is p(x | c), and
            `flow.condition` turns such values into the context that its methods take.
        model: an option of the group `model`.
        seconds: the most that training may take, the closing evaluation not included; None leaves
            it to the other settings.
        columns: of x, by name or position; None is all.
        folder: of the run; by default a new one below outputs/.
        overrides: further settings, as `train` takes them.
        quiet: print nothing; the log keeps its lines, in the folder's flowtrain.log too.

    Raises:
        UserError: x holds what is no finite number, or context no value, and where; or a setting
            is refused.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> few = ["trainer.max_steps=20", "trainer.figures=false"]
    >>> trained = fit(x, model="affine", folder=tmp_path, overrides=few, quiet=True)
    >>> trained.flow.log_prob(x.double()).dtype
    torch.float64
    >>> kind = ["small", "large"] * 100
    >>> trained = fit(
    ...     x, context=kind, model="affine", folder=tmp_path / "c", overrides=few, quiet=True)
    >>> small = trained.flow.condition.encode({"c0": "small"})
    >>> trained.flow.sample(5, context=small).shape
    torch.Size([5, 2])
    """
    table = as_table(x, columns, context)
    given = ["data=table", "data.path=points.npz", f"model={model}"]
    if seconds is not None:
        given.append(f"trainer.max_seconds={seconds}")
    if table.given:
        given.append(f"data.condition=[{','.join(map(for_hydra, table.given))}]")
    own = ("data=", "data.path=", "data.condition=", "resume=")
    if other := [each for each in overrides if each.lstrip("+~").startswith(own)]:
        raise ConfigError(f"{other[0]}: fit begins a run on x, given context; see train")
    composed = compose([*given, *overrides], folder=folder)
    points = RunFolder(composed.folder).points.absolute()
    with locked(composed.folder):  # no other process's points are written over
        if not (points.exists() and RunFolder(composed.folder).begun):
            save_points(points, table)
        elif not holds(points, table):
            raise UserError(f"{composed.folder}: this folder holds a run on other points")
    composed.raw["data"]["path"] = str(points)
    return _run(composed, quiet=quiet)


def _run(composed: Composed, *, quiet: bool) -> Trained:
    """Train what is composed, and return it loaded."""
    config, folder = checked(composed.raw, composed.asked), composed.folder
    with _as_it_was(), ExitStack() as shown:
        try:
            RunFolder(folder).refuse_links()
            if not config.resume:
                _record(composed)
            file = LogFile(str(RunFolder(folder).log))
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            shown.enter_context(handling(file))
            if not quiet:
                shown.enter_context(console_lines())
            what = "resuming" if config.resume else f"{config.model.name} on {config.data.title} in"
            log.info("%s %s", what, folder)
            for line in config.logger.view(folder):
                log.info("  %s", line)
            asked = composed.asked
            result = train_config(config, folder, asked=asked, trust_code=config.trust_code)
        except OSError as error:  # the disk or the network, no defect
            raise UserError(f"{error.filename or folder}: {error.strerror or error}") from error
    if result.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if result.signal is not None:
        sys.exit(128 + result.signal)
    flow = load(folder, trust_code=True)  # of code that this call has just run
    return Trained(result.metrics, folder, flow)


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Give the process back its threads: a run sets as many as its config says."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _record(composed: Composed) -> None:
    """Leave the config where Hydra would; a run that is there, or at work, keeps its own."""
    hydra = RunFolder(composed.folder).composed.parent
    if RunFolder(composed.folder).begun or owner(composed.folder) is not None:
        return
    hydra.mkdir(parents=True, exist_ok=True)
    for name, content in (("config", composed.raw), ("overrides", composed.overrides)):
        text = yaml.safe_dump(content, sort_keys=False)
        (hydra / f"{name}.yaml").write_text(text, encoding="utf-8")
