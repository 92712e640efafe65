"""Fixtures that tests of several folders share."""

import os

# Before torch reads it: threads of several workers would wait for each other, five times as long.
os.environ["OMP_NUM_THREADS"] = "1"

import copy
import json
import logging
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from torch import nn

from flowtrain.cli import flowtrain as cli
from flowtrain.config.schema import Config, validate
from flowtrain.config.solver import Adaptive
from flowtrain.flows.continuous import ContinuousFlow, ffjord
from flowtrain.flows.fields import ConcatSquash
from flowtrain.flows.flow import Standardize

DOPRI5 = Adaptive(name="dopri5", rtol=1e-5, atol=1e-5, max_steps=200)


@pytest.fixture(scope="session")
def make_ffjord() -> Callable[..., ContinuousFlow]:
    """Return a builder of small FFJORDs with random weights, in float64 unless told otherwise."""

    def make(
        dim: int = 2, *, seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any
    ) -> ContinuousFlow:
        settings: dict[str, Any] = {
            "field": ConcatSquash, "width": 16, "depth": 2, "activation": "tanh",
            "divergence": "auto", "probes": None, "noise": None, "solver": DOPRI5,
        }  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        standardize = Standardize(0.5 + torch.arange(dim), 1.5 + torch.arange(dim))
        flow = ffjord(standardize, generator=generator, **(settings | changes))
        randomize(flow, generator)
        return flow.to(dtype)

    return make


@pytest.fixture(scope="session", name="randomize")
def fixture_randomize() -> Callable[[nn.Module, torch.Generator], None]:
    return randomize


@torch.no_grad()
def randomize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight anew: last layers start at zero, and a flow at the identity."""
    for parameter in module.parameters():
        spread = 1.5 * parameter.shape[-1] ** -0.5
        parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))


CONF = Path(__file__).parents[1] / "conf"
# A run of 20 steps in a quarter of a second.
TINY = (
    "data=gaussian_mixture", "trainer=debug", "trainer.device=cpu", "trainer.threads=1",
    "trainer.figures=false", "splits.train=512", "splits.val=64", "splits.test=64",
    "evaluation.grid=16", "evaluation.batch_size=4096",
)  # fmt: skip
SMALL = {
    "affine": ("model=affine",),
    **{
        name: (f"model={name}", "model.couplings=2", "model.hidden=8", "model.depth=1")
        for name in ("realnvp", "glow", "spline")
    },
    **{
        name: (f"model={name}", "model.layers=2", "model.hidden=8", "model.depth=1")
        for name in ("maf", "iaf", "maf_spline")
    },
    **{name: (f"model={name}", "model.layers=4") for name in ("planar", "radial")},
    "zuko": ("model=zuko", "model.transforms=2", "++model.arguments.hidden_features=[8]"),
    "normflows": ("model=normflows", "model.transforms=2", "model.hidden=8", "model.depth=1"),
    "ffjord": (
        "model=ffjord", "model.width=8", "model.depth=1", "trainer.batch_size=32",
        "solver=bosh3", "solver@evaluation.solver=dopri5",
    ),
}  # fmt: skip


@lru_cache(maxsize=256)
def composed(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


@cache
def parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict[str, Any]]:
    """Return a function from overrides to the composed config, as plain containers.

    Hydra takes a quarter of a second for it. So what some options make is kept, and settings are
    put into a copy, as Hydra puts them into what it has made of the options.
    """

    def compose(*overrides: str) -> dict[str, Any]:
        settings = {each: parsed(each) for each in overrides if re.match(r"[a-z_]+\.[\w.]+=", each)}
        config = copy.deepcopy(composed(*(each for each in overrides if each not in settings)))
        for setting in settings.values():
            OmegaConf.update(config, setting.key_or_group, setting.value())
        raw = OmegaConf.to_container(config, resolve=True)
        assert isinstance(raw, dict)
        return {str(key): value for key, value in raw.items()}

    return compose


@pytest.fixture(scope="session")
def tiny(compose: Callable[..., dict[str, Any]]) -> Callable[..., Config]:
    """Return a function from overrides to the valid config of a tiny run."""

    def tiny(*overrides: str, model: str = "realnvp") -> Config:
        if model in ("zuko", "normflows"):
            pytest.importorskip(model)  # of the extra [zoo]
        return validate(compose(*TINY, *SMALL[model], *overrides))

    return tiny


@pytest.fixture(scope="session")
def tiny_on_table(tiny: Callable[..., Config]) -> Callable[..., Config]:
    """Return a function from a table's path to the config of a tiny run on some of its columns."""

    def tiny_on_table(
        path: str | Path, *overrides: str, columns: list[str] | None = None, model: str = "realnvp"
    ) -> Config:
        data = {
            "name": "table", "path": str(path), "columns": columns, "condition": None,
            "categorical": None, "header": "auto", "missing": "refuse", "dequantize": True,
        }  # fmt: skip
        splits = {"name": "random", "val": 0.2, "test": 0.2, "seed": 0}
        raw = tiny(*overrides, model=model).model_dump()
        return validate({**raw, "data": data, "splits": splits})

    return tiny_on_table


@pytest.fixture(scope="session")
def tiny_overrides() -> list[str]:
    """Return what makes a run tiny on the command line."""
    return [*TINY, *SMALL["realnvp"]]


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the command `flowtrain` in an empty folder."""

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [Path(sys.executable).with_name("flowtrain"), *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start


@pytest.fixture
def flowtrain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Return a function that runs the command `flowtrain` in an empty folder, in this process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["flowtrain", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    yield run
    for handler in root.handlers:  # those of Hydra
        handler.close()
    root.handlers, root.level = handlers, level


@pytest.fixture(scope="session")
def history() -> Callable[[Path], list[dict[str, Any]]]:
    """Return a function that reads a run folder's metrics.jsonl."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    return read


@pytest.fixture(scope="session")
def losses(history: Callable[[Path], list[dict[str, Any]]]) -> Callable[[Path], list[float]]:
    """Return a function from a run folder to the losses that it logged, in their order."""
    return lambda folder: [line["loss"] for line in history(folder) if "loss" in line]


@pytest.fixture(scope="session")
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Return a context in which no file grows beyond so many bytes, as on a disk that is full."""

    @contextmanager
    def full_disk(limit: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full_disk


@pytest.fixture(scope="session")
def trials() -> Callable[[Path], list[dict[str, Any]]]:
    """Return a function from a sweep's folder to all that its study knows, but for the times."""

    def trials(sweep: Path) -> list[dict[str, Any]]:
        optuna = pytest.importorskip("optuna")
        journal = optuna.storages.journal.JournalFileBackend(str(sweep / "study.journal"))
        storage = optuna.storages.JournalStorage(journal)
        study = optuna.load_study(study_name="flowtrain", storage=storage)
        return [
            {
                "number": trial.number, "state": trial.state.name, "params": trial.params,
                "values": trial.values, "evaluations": trial.intermediate_values,
            }
            for trial in study.get_trials()
        ]  # fmt: skip

    return trials
