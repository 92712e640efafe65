"""`flowrun evaluate`: the metrics of a run again, or its likelihood on points of a user's own."""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

if TYPE_CHECKING:
    from flowtrain.data.splits import Split
    from flowtrain.runs.load import SavedRun

SUMMARY = "measure a run again, or its NLL on points of your own"
SOLVER_OPTIONS = ("rtol", "atol", "step_size", "dtype")


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    shared.add_given_option(command)
    solver = command.add_argument_group(
        "solver of a continuous flow", "what is not given stays as in the run's evaluation.solver"
    )
    solver.add_argument("--solver", metavar="NAME", help="dopri5, dopri8, rk4, ...")
    solver.add_argument("--rtol", type=float, help="relative tolerance of an adaptive method")
    solver.add_argument("--atol", type=float, help="absolute tolerance, in whitened coordinates")
    solver.add_argument("--step-size", type=float, help="of a fixed-step method, within [0, 1]")
    solver.add_argument("--dtype", choices=("float32", "float64"), help="while solving")
    command.add_argument(
        "--points", metavar="FILE", type=Path,
        help="measure the NLL of these points instead: .csv, .tsv, .npy, .npz or .parquet",
    )  # fmt: skip
    shared.add_file_options(command)
    command.add_argument("--json", metavar="FILE", help="write the metrics; - is standard output")


def run(options: argparse.Namespace) -> None:
    """Print the metrics of a run, by its own splits or by a user's points, and write them."""
    from flowtrain.cli.console import say, working
    from flowtrain.files import check_output, json_text, writing

    to_file = options.json not in (None, "-")
    if to_file:
        check_output(Path(options.json), (".json",))
    for name, unset in (("columns", None), ("header", "auto"), ("missing", "refuse")):
        if options.points is None and getattr(options, name) != unset:
            raise UserError(f"--{name} has no effect without --points")
    with working():
        saved, metrics, rows = measure(options)
    config = saved.config
    about: dict[str, Any] = {
        "run": str(saved.folder),
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "checkpoint": options.checkpoint,
        "step": saved.step,
        "device": str(saved.flow.device),
        "solver": config.evaluation.solver.model_dump(),
    }
    if rows is not None:
        about |= {"points": str(options.points), "rows": rows}
    text = json_text({**about, "metrics": metrics}, indent=2) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
    else:
        print_report(saved, metrics, options, rows=rows)
    if to_file:
        with writing(Path(options.json)) as file:
            file.write(text.encode())
        say(f"wrote {options.json}: {len(metrics)} metrics")
    from flowtrain.evaluation.checks import warnings_about

    for line in warnings_about(metrics, base=config.model.base):
        say(f"warning: {line}")
    if metrics.get("kl/points", 0.0) < -2 * metrics.get("kl_error/points", math.inf):
        say(
            "KL is below zero by more than twice its error: the points may not be from the data's "
            "density (for example, they may be the model's own samples)"
        )


def measure(options: argparse.Namespace) -> tuple["SavedRun", dict[str, float], int | None]:
    """Return the run, its metrics and, if those are of a user's points, how many these are."""
    saved, batch_size = shared.open_chosen(options, conditional=True, mixture=True)
    saved = _solved_by(saved, options)
    if options.points is None:
        from flowtrain.evaluation.metrics import evaluate

        config = saved.config
        with doing("evaluating"):
            metrics = evaluate(
                saved.flow,
                saved.splits,
                training_solver=config.training_solver,
                grid=config.evaluation.grid,
                batch_size=batch_size,
            )
        return saved, metrics, None
    from flowtrain.cli.points import as_split, read_points
    from flowtrain.data.dequantize import spread

    header = shared.header(options)
    table = read_points(
        saved, options.points, columns=options.columns, header=header, missing=options.missing
    )
    if saved.grid:  # as the run's own rows were, or the two NLLs would not compare
        table = replace(table, values=spread(table.values, saved.grid))
    points = as_split(saved, table, options.points)
    with doing(f"evaluating {options.points.name}"):
        metrics = point_metrics(saved, points, batch_size=batch_size)
    return saved, metrics, len(points.x)


def print_report(
    saved: "SavedRun", metrics: dict[str, float], options: argparse.Namespace, *, rows: int | None
) -> None:
    """Print the table that ends a training, or what there is to say of a user's points."""
    from flowtrain.evaluation.findings import in_columns, measured

    config = saved.config
    if rows is None:
        told = measured(metrics)
    else:
        told = {"NLL of the points": _with_error(metrics, "nll")}
        if "kl/points" in metrics:
            told["KL(data | model)"] = (
                f"{_with_error(metrics, 'kl')}, if the points follow the density of the run's data"
            )
        noised = ", spread over the cells of the run's columns" if saved.grid else ""
        told["points"] = f"{rows:,} rows of {options.points}{noised}"
    parameters = sum(weight.numel() for weight in saved.flow.parameters())
    told |= {
        "parameters": f"{parameters:,}",
        "weights": shared.weights(saved, options),
        "run folder": str(saved.folder),
    }
    if config.model.continuous:
        told["solver"] = shared.solver(saved)
    print(f"{saved.name}, {saved.seeds}, in nats")
    for line in in_columns(told):
        print(line)


def _with_error(metrics: dict[str, float], name: str) -> str:
    error = metrics.get(f"{name}_error/points")
    value = f"{metrics[f'{name}/points']:.4f}"
    return value if error is None else f"{value} ± {error:.4f}"


def point_metrics(saved: "SavedRun", points: "Split", *, batch_size: int) -> dict[str, float]:
    """Return the NLL of points in nats, and KL where their density is known, by tag.

    `kl/points` is the mean of log p - log q: it estimates KL(p|q) if the points follow p. Errors
    are standard errors of the mean, for two points or more.
    """
    from flowtrain.evaluation.metrics import likelihood
    from flowtrain.evaluation.tags import tagged

    found = likelihood(saved.flow, points, batch_size=batch_size)
    found.pop("nll_paired", None)  # true of points that follow the density: these need not
    several = len(points.x) > 1
    return tagged({k: v for k, v in found.items() if several or not k.endswith("_error")}, "points")


def _solved_by(saved: "SavedRun", options: argparse.Namespace) -> "SavedRun":
    """Return the run evaluated by the solver that the options ask for, if they ask for any."""
    given = {name: v for name in SOLVER_OPTIONS if (v := getattr(options, name)) is not None}
    if options.solver is None and not given:
        return saved
    if not saved.config.model.continuous:
        raise UserError(
            f"{saved.folder}: {saved.config.model.name} solves no ODE; "
            "a solver would have no effect"
        )
    from flowtrain.cli.compose import compose_option

    own = saved.config.evaluation.solver.model_dump()
    defaults = own
    if options.solver == "none":
        raise UserError("--solver: none solves nothing, and a continuous flow needs a solver")
    if options.solver is not None:
        try:
            defaults = compose_option("solver", options.solver)
        except UserError as error:
            raise UserError(f"--{error}") from None
    if without := [name for name in given if name not in defaults]:
        option = "--" + without[0].replace("_", "-")
        has = ", ".join(
            "--" + name.replace("_", "-") for name in SOLVER_OPTIONS if name in defaults
        )
        raise UserError(f"{option}: {defaults['name']} has no such setting; it has {has}")
    kept = {name: value for name, value in own.items() if name in defaults and name != "name"}
    if options.solver not in (None, defaults["name"]):
        kept = {}  # a preset, as dopri5_tight: its settings are what it is
    with shared.of_options("evaluation.solver."):
        return saved.with_solver({**defaults, **kept, **given})
