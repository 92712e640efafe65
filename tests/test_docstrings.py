"""Every public name has an example in its docstring, and every example gives what it says."""

import doctest
import importlib
import pkgutil
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from inspect import isclass, isroutine, unwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch

import flowtrain
from flowtrain.config.section import Section, names

MODULES = [
    module.name
    for module in pkgutil.walk_packages(flowtrain.__path__, "flowtrain.")
    if module.name != "flowtrain.__main__"  # it runs when it is imported
]
# What a Python user imports; the command line and the rest of training serve flowtrain alone.
OFFERED = tuple(
    f"flowtrain.{place}"
    for place in (
        "api", "batching", "build", "comparison", "config", "data", "densities", "evaluation",
        "files", "flows", "runs", "text", "training.flow_matching", "training.objectives",
        "training.report", "training.schedule", "training.trainer", "untrusted",
    )
)  # fmt: skip
# Groups whose options differ in their fields alone: the base class has the example.
ALIKE = ("data", "logger", "model", "objective", "optimizer", "splits")
NEEDED = {
    "flowtrain.flows.from_normflows.Backwards": "normflows",
    "flowtrain.flows.from_normflows.FromNormflows": "normflows",
    "flowtrain.flows.from_normflows.Residual": "normflows",
    "flowtrain.flows.from_normflows.normflows": "normflows",
    "flowtrain.flows.from_zuko.FromZuko": "zuko",
    "flowtrain.flows.from_zuko.zuko": "zuko",
    "flowtrain.training.soap.Soap": "pytorch_optimizer",
    "flowtrain.evaluation.images.save_mp4": "av",
    "flowtrain.runs.graph.save_onnx": "onnxruntime",
    "flowtrain.runs.weights.save_weights": "safetensors",
    "flowtrain.runs.weights.read_weights": "safetensors",
}
RUNS = Path(__file__).parent / "runs" / "schema_0"


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of two small finished runs by the names that examples know them by."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: Path(shutil.copytree(RUNS / model, folder / model))
        for name, model in (("run_folder", "realnvp"), ("ffjord_folder", "ffjord"))
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_hold(name: str, tmp_path: Path, run_folders: dict[str, Path]) -> None:
    runner = doctest.DocTestRunner(verbose=False)
    failures: list[str] = []
    for example in examples(importlib.import_module(name)):
        if (package := NEEDED.get(example.name)) and find_spec(package) is None:
            continue
        own = tmp_path / example.name
        own.mkdir()
        example.globs |= {"torch": torch, "Path": Path, "tmp_path": own, **run_folders}
        runner.run(example, out=failures.append)
    assert not failures, "".join(failures)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(OFFERED)])
def test_every_public_name_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    shown = {example.name for example in examples(module)}
    assert {f"{name}.{each}" for each in public(module)} - shown == set()


def examples(module: ModuleType) -> Iterator[doctest.DocTest]:
    """Yield the examples of a module, one for each docstring that has any."""
    found = doctest.DocTestFinder().find(module)
    yield from (each for each in found if each.examples)


def public(module: ModuleType) -> Iterator[str]:
    """Yield the names of the classes and functions that a module defines for others.

    Not among them: protocols and errors, which state what others do, and the sections that a
    config's group chooses from.
    """
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if isclass(value):
            states = getattr(value, "_is_protocol", False) or issubclass(value, Exception)
            group = module.__name__.removeprefix("flowtrain.config.")
            chosen = group in ALIKE and issubclass(value, Section) and bool(names(value))
            if not (states or chosen):
                yield name
        elif isroutine(unwrap(value)):
            yield name
