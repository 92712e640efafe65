"""`flowrun plot`: any figure of a run again, as large and sharp as print needs it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowtrain.runs.load import SavedRun

SUMMARY = "draw a figure of a run, for a slide or a paper"
GRID = 256  # points per axis
WHAT = {
    "conditions": "p(x | c) for several c, exact density, model density, samples",
    "density": "data, exact density, model density, samples",
    "paths": "a continuous flow's ways from base to data",
    "field": "its velocity over its density",
    "images": "of digits: data and samples, a row for each class of p(x | c)",
    "marginals": "pairs of columns",
    "curves": "NLL and KL over the steps",
}


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    shared.add_given_option(command)
    command.add_argument(
        "--what", choices=WHAT,
        help="; ".join(f"{name}: {shown}" for name, shown in WHAT.items())
        + " (default: density; marginals of a table or beyond the plane; conditions of a known "
        "p(x | c); images of digits)",
    )  # fmt: skip
    command.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        help=".png, .pdf or .svg (default: figures/WHAT.png in the run's folder)",
    )  # fmt: skip
    command.add_argument(
        "--dpi", type=shared.at_least(20, at_most=1200), default=300,
        help="dots per inch, 20 to 1200 (default: 300)",
    )  # fmt: skip
    command.add_argument(
        "--grid", metavar="POINTS", type=shared.at_least(8, at_most=2048),
        help=f"at which the densities are evaluated, per axis, 8 to 2048 (default: {GRID})",
    )  # fmt: skip
    command.add_argument(
        "--columns", metavar="NAMES", type=shared.columns,
        help="of marginals, by name or by position from 0: x,y or 0,2 (default: five at most)",
    )  # fmt: skip
    command.add_argument("--title", help='(default: model, data and figures of merit; "" for none)')
    shared.add_seed_option(command)


def run(options: argparse.Namespace) -> None:
    """Draw a figure of a run."""
    from flowtrain.cli.console import say, working

    with working():
        path, told = _write(options)
    say(f"wrote {path}")
    say(f"it is of {told}")


def _write(options: argparse.Namespace) -> tuple[Path, str]:
    """Write the figure; return its path, and what it shows."""
    with doing("loading torch"):
        from flowtrain.evaluation.images import save_figure
        from flowtrain.files import check_output, writing
        from flowtrain.runs.folder import RunFolder

    if options.output is not None:
        check_output(options.output, (".png", ".pdf", ".svg"))
    curves = options.what == "curves"  # they are of replicas, too
    if curves and (options.given or options.grid is not None):
        name = "--given" if options.given else "--grid"
        raise UserError(f"{name}: curves are of the whole training; leave it out")
    saved, batch_size = shared.open_chosen(options, conditional=True, mixture=curves)
    with doing("drawing"):
        figure, what = _figure(saved, options, batch_size)
        path = options.output or RunFolder(saved.folder).figure(f"{what}.png")
        with writing(path) as file:
            save_figure(figure, file, path.suffix, dpi=options.dpi)
    of_training = f"the training of {saved.name} in {saved.folder}"
    return path, of_training if curves else shared.about(saved, options)


def _figure(
    saved: "SavedRun", options: argparse.Namespace, batch_size: int
) -> tuple["Figure", str]:
    """Return the figure that was asked for, and its name."""
    from flowtrain.evaluation import pictures
    from flowtrain.evaluation.learning import curves_figure
    from flowtrain.runs.folder import RunFolder
    from flowtrain.runs.result import read_history

    title = _title(saved) if options.title is None else options.title
    if options.what == "curves" and not options.columns:  # its data may be gone
        history = read_history(RunFolder(saved.folder))
        if not history:
            raise UserError(f"{saved.folder}: there is no metrics.jsonl to draw curves from")
        return curves_figure(history, title=title), "curves"
    splits = saved.splits
    data = splits.train if saved.law is None else splits.test
    names = pictures.names_of(saved.flow, data)
    what = options.what or names[0]
    if options.columns and what != "marginals":
        raise UserError("--columns are those of --what marginals")
    if what not in names:
        if what == "images":
            raise UserError(
                f"--what images is drawn of scikit-learn's digits, and {saved.folder} is of "
                f"{saved.config.data.title}; choose from {', '.join([*names, 'curves'])}"
            )
        kind = "a continuous flow" if what in ("paths", "field") else "a flow"
        given = " given a condition" if saved.flow.context_dim else ""
        raise UserError(
            f"--what {what} is drawn of {kind} of p(x) in the plane, and {saved.folder} is "
            f"{saved.config.model.name} of {saved.flow.dim} columns{given}; "
            f"choose from {', '.join([*names, 'curves'])}"
        )
    shown = _positions(options.columns, data.columns or saved.columns)
    figure = pictures.draw(
        what, saved.flow, data, title=title, seed=options.seed, batch_size=batch_size,
        side=options.grid or GRID, shown=shown,
    )  # fmt: skip
    return figure, what


def _title(saved: "SavedRun") -> str:
    """Return the line above a figure, with the closing metrics if they are of these weights."""
    from flowtrain.evaluation.tags import is_evaluation
    from flowtrain.runs.folder import RunFolder
    from flowtrain.runs.result import read_history, read_result
    from flowtrain.training.report import figure_title

    if saved.context is not None:  # the figures of merit are of all conditions
        return f"{saved.name}, step {saved.step:,}"
    folder = RunFolder(saved.folder)
    result = read_result(folder)
    metrics = result.get("metrics", {})
    if result.get("status") != "completed" or result.get("best_step") != saved.step:
        lines = [line for line in read_history(folder) if is_evaluation(line)]
        of_step = [line for line in lines if line["step"] == saved.step]
        metrics = of_step[-1] if of_step else {}
    known = {tag: value for tag, value in metrics.items() if value is not None}
    return figure_title(saved.config, saved.step, known)


def _positions(asked: list[str | int] | None, columns: tuple[str, ...]) -> list[int] | None:
    if asked is None:
        return None
    for column in asked:
        known = column in columns if isinstance(column, str) else column < len(columns)
        if not known:
            raise UserError(
                f"--columns: there is no column {column}; choose from {', '.join(columns)}"
            )
    positions = [columns.index(each) if isinstance(each, str) else each for each in asked]
    for place in positions:
        if positions.count(place) > 1:
            raise UserError(f"--columns: column {columns[place]!r} is chosen twice")
    return positions
