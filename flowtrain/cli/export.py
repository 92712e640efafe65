"""`flowrun export`: a run's flow for other tools, measured against the flow itself."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

if TYPE_CHECKING:
    from flowtrain.runs.load import SavedRun

SUMMARY = "write a run's flow for other tools"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_weights_options(command)
    command.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True,
        help=".safetensors: weights and config, for flowtrain.load; .onnx or .pt2 (torch.export): "
        "a graph that needs no flowtrain",
    )  # fmt: skip
    command.add_argument(
        "--function", choices=("log_prob", "sample"),
        help="of a graph: log_prob of data points x (default), or sample: base points z, draws of "
        "the run's base, to data points x",
    )  # fmt: skip
    command.add_argument(
        "--steps", metavar="N", type=shared.at_least(1),
        help="of a continuous flow's graph: equal steps of rk4 from base to data (default: 16); "
        "their error is measured, printed and written",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Write weights, or a graph, and say how exact it is."""
    from flowtrain.cli.console import say, working
    from flowtrain.files import check_output

    path = options.output
    check_output(path, (".safetensors", ".onnx", ".pt2"))
    graph = path.suffix.lower() != ".safetensors"
    for name in ("function", "steps"):
        if not graph and getattr(options, name) is not None:
            raise UserError(f"--{name} has no effect on .safetensors; use .onnx or .pt2")
    shared.refuse_replicas(options.run)
    with working():
        with doing("opening the run"):
            from flowtrain.runs.load import open_run

            saved = open_run(options.run, options.checkpoint, trust_code=options.trust_code)
        told = [*write_graph(saved, options)] if graph else [*write_weights(saved, path)]
    for line in told:
        say(line)


def write_weights(saved: "SavedRun", path: Path) -> Iterator[str]:
    """Write the weights and the config of a run; yield what there is to say of it."""
    from flowtrain.runs.weights import save_weights

    save_weights(path, saved)
    yield f"wrote {path}: flowtrain.load({str(path)!r}) reads it"


def write_graph(saved: "SavedRun", options: argparse.Namespace) -> Iterator[str]:
    """Write a function of a run's flow as a graph; yield what it takes, gives, and how exactly."""
    from flowtrain.runs.graph import CHECKED, ONNX, Function, save_onnx, save_pt2, trace
    from flowtrain.runs.weights import refuse_if_missing

    path = options.output
    save, runtime, needed = {
        ".onnx": (save_onnx, "onnxruntime", ONNX),
        ".pt2": (save_pt2, "torch.export.load", ()),
    }[path.suffix.lower()]
    refuse_if_missing(*needed)
    function: Function = options.function or "log_prob"
    with doing(f"tracing {function}, up to a minute"):
        graph = trace(saved, function, steps=options.steps)
    with doing(f"writing and checking {path}"):
        off = save(path, graph)
    about, base = graph.about, graph.about["base"]
    takes, gives = (
        ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in about[side].items())
        for side in ("inputs", "outputs")
    )
    if function == "sample" and base["name"] != "normal":
        yield f"z are draws of the run's base, {base['name']}: its parameters are in the file"
    unit = "nats" if function == "log_prob" else "units of the data"
    yield f"wrote {path}: {takes} -> {gives}, {about['dtype']}, for any n"
    yield f"{runtime} is within {off:.1e} {unit} of the flow in float64, on {CHECKED:,} points"
    if "solver" in about:
        error = about["solver"]["error"]
        mean = f", {error['mean']:+.1e} on average" if "mean" in error else ""
        yield (
            f"rk4 in {about['solver']['steps']} steps is within {error['max']:.1e} {unit} of "
            f"the evaluation solver{mean}, {error['rms']:.1e} rms; more --steps are more exact"
        )
