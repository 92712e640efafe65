"""`flowrun export`: a run's flow for other tools, measured against the flow itself."""

import argparse
from pathlib import Path

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

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
    kind = path.suffix.lower()
    if kind == ".safetensors":
        for name in ("function", "steps"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} has no effect on .safetensors; use .onnx or .pt2")
    shared.refuse_replicas(options.run)
    with working(), doing("opening the run"):
        from flowtrain.runs.load import open_run
        from flowtrain.runs.weights import refuse_if_missing, save_weights

        saved = open_run(options.run, options.checkpoint, trust_code=options.trust_code)
    if kind == ".safetensors":
        save_weights(path, saved)
        say(f"wrote {path}: flowtrain.load({str(path)!r}) reads it")
        return

    from flowtrain.runs.graph import CHECKED, ONNX, Function, save_onnx, save_pt2, trace

    save, runtime, needed = {
        ".onnx": (save_onnx, "onnxruntime", ONNX),
        ".pt2": (save_pt2, "torch.export.load", ()),
    }[kind]
    refuse_if_missing(*needed)
    function: Function = options.function or "log_prob"
    with working():
        with doing(f"tracing {function}, up to a minute"):
            graph = trace(saved, function, steps=options.steps)
        with doing(f"writing and checking {path}"):
            off = save(path, graph)
    takes, gives = (
        ", ".join(f"{name} ({', '.join(map(str, s))})" for name, s in graph.about[side].items())
        for side in ("inputs", "outputs")
    )
    base = graph.about["base"]
    if function == "sample" and base["name"] != "normal":
        say(f"z are draws of the run's base, {base['name']}: its parameters are in the file")
    unit = "nats" if graph.about["function"] == "log_prob" else "units of the data"
    say(f"wrote {path}: {takes} -> {gives}, {graph.about['dtype']}, for any n")
    say(f"{runtime} is within {off:.1e} {unit} of the flow in float64, on {CHECKED:,} points")
    if "solver" in graph.about:
        error = graph.about["solver"]["error"]
        mean = f", {error['mean']:+.1e} on average" if "mean" in error else ""
        say(
            f"rk4 in {graph.about['solver']['steps']} steps is within {error['max']:.1e} {unit} of "
            f"the evaluation solver{mean}, {error['rms']:.1e} rms; more --steps are more exact"
        )
