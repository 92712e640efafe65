"""What each command of `flowrun` does, given its options."""

import json
import math
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import yaml
from rich import box, progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flowtrain import compare as comparisons
from flowtrain.cli import CONF
from flowtrain.errors import UserError
from flowtrain.evaluate import evaluate as measure
from flowtrain.flows import ContinuousFlow
from flowtrain.flows.ode import ADAPTIVE, FIXED
from flowtrain.outputs import check_output, writing
from flowtrain.report import doubts
from flowtrain.rows import FORMATS, write_rows
from flowtrain.runs import SavedRun, open_run
from flowtrain.scores import auroc, log_likelihood, point_figures, read_points, threshold

T = TypeVar("T")

HEADER: dict[str, Literal["auto"] | bool] = {"auto": "auto", "true": True, "false": False}


def evaluate(options: Namespace) -> None:
    """Print the figures of a run, by its own pools or by a user's points, and write them."""
    to_file = options.json not in (None, "-")
    if to_file:
        check_output(Path(options.json), (".json",))
    for name, unset in (("columns", None), ("header", "auto")):
        if options.points is None and getattr(options, name) != unset:
            raise UserError(f"--{name} has no effect without --points")
    run, batch_size = _open(options)
    run = _solved_by(run, options)
    config = run.config
    about: dict[str, Any] = {
        "run": str(run.folder),
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "checkpoint": options.checkpoint,
        "step": run.step,
        "device": str(run.device),
        "solver": config.evaluation.solver.model_dump(),
    }
    if options.points is None:
        grid = config.evaluation.grid
        metrics = measure(run.flow, run.pools(), grid=grid, batch_size=batch_size)
    else:
        header = HEADER[options.header]
        table = read_points(run, options.points, columns=options.columns, header=header)
        about |= {"points": str(options.points), "rows": len(table.values)}
        metrics = point_figures(run, table.values, batch_size=batch_size)

    finite = {tag: value if math.isfinite(value) else None for tag, value in metrics.items()}
    text = json.dumps({**about, "metrics": finite}, indent=2) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
    else:
        title = "{run}: {model} on {data}, seed {seed}, {checkpoint} weights, of step {step}"
        rows = [[tag, f"{value:.6g}"] for tag, value in metrics.items()]
        _print_table(["figure", "value"], rows, left=1, title=title.format_map(about))
        if "kl/points" in metrics:
            print("kl/points is KL if the points follow the law of the run's data")
    if to_file:
        with writing(Path(options.json)) as file:
            file.write(text.encode())
    for line in doubts(metrics):
        sys.stderr.write(f"flowrun: warning: {line}\n")


def sample(options: Namespace) -> None:
    """Draw points into a file or, as CSV, onto standard output, a batch at a time."""
    _require(options.n >= 1, f"-n: {options.n} is refused: it should be at least 1")
    path = _rows_output(options.output)
    run, batch_size = _open(options)
    generator = _seeded(options)

    def blocks() -> Iterator[torch.Tensor]:
        for start in range(0, options.n, batch_size):
            yield run.flow.sample(min(batch_size, options.n - start), generator).cpu()

    write_rows(path, run.columns, _watched(blocks(), options.n, path), rows=options.n)


def score(options: Namespace) -> None:
    """Write the log-density of each row of a user's file, and tell how well it finds anomalies."""
    quantile = options.threshold_quantile
    if quantile is not None:
        _require(
            0 < quantile < 1,
            f"--threshold-quantile: {quantile:g} is refused: it should be between 0 and 1",
        )
    path = _rows_output(options.output)
    run, batch_size = _open(options)
    table = read_points(
        run,
        options.file,
        columns=options.columns,
        header=HEADER[options.header],
        label=options.label,
    )
    labels = table.labels
    if labels is not None and bool(labels.all() or not labels.any()):
        raise UserError(
            f"{options.file}: column {options.label!r} is {int(labels[0])} in every row; "
            "an AUROC needs rows of both kinds"
        )
    log_q = log_likelihood(run, table.values, batch_size=batch_size)
    columns = {"log_prob": log_q}
    told = []
    if quantile is not None:
        limit, number = threshold(run, quantile, batch_size=batch_size)
        anomalous = ~(log_q >= limit)  # so that NaN is an anomaly
        columns["anomaly"] = anomalous.to(log_q)
        told.append(
            f"anomaly: log_prob below {limit:.6g} nats, the {quantile:g} quantile of {number:,} "
            f"validation points: {int(anomalous.sum()):,} of {len(log_q):,} rows"
        )
    if labels is not None:
        told.append(
            f"AUROC of -log_prob: {auroc(log_q, labels):.4f}, "
            f"{int(labels.sum()):,} anomalies of {len(log_q):,} rows"
        )
    write_rows(path, list(columns), [torch.stack([*columns.values()], -1)], rows=len(log_q))
    for line in told:
        sys.stderr.write(f"flowrun: {line}\n")


def compare(options: Namespace) -> None:
    """Print a table over many runs, and write table and picture."""
    for path, suffixes in ((options.output, (".csv", ".md")), (options.figure, (".png",))):
        if path is not None:
            check_output(path, suffixes)
    comparison = comparisons.compare(
        options.folders, group_by=options.group_by, metrics=options.metric, sort=options.sort
    )
    left = len(comparison.keys)
    rows = comparison.cells(lambda text: f"[bold]{text}[/bold]")
    safe = ([*map(escape, row[:left]), *row[left:]] for row in rows)  # [a] would be markup
    _print_table(comparison.columns, safe, left=left)
    for note in comparison.notes:
        print(note)
    for path in (options.output, options.figure):
        if path is not None:
            comparisons.write(comparison, path)


def animate(options: Namespace) -> None:
    """Write an animation of a continuous flow's way from base to data."""
    from flowtrain import plots

    for name, least in (("frames", 2), ("points", 1)):
        number = getattr(options, name)
        _require(number >= least, f"--{name}: {number} is refused: it should be at least {least}")
    run, batch_size = _open(options)
    path = options.output or run.folder / "figures" / "flow.gif"
    savers = {".gif": plots.save_gif, ".mp4": plots.save_mp4}
    check_output(path, savers)
    if not isinstance(run.flow, ContinuousFlow):
        raise UserError(f"{run.folder}: {run.config.model.name} has no time to animate")
    law = run.law()
    if law is None:
        raise UserError(f"{run.folder}: only a known law in the plane is animated")
    z = run.flow.sample_base(options.points, _seeded(options))
    images = plots.animation(run.flow, law, z, frames=options.frames, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as scratch:  # the savers go by the suffix
        draft = Path(scratch) / path.name
        savers[path.suffix.lower()](_watched(images, options.frames, path), draft)
        with writing(path) as file:
            file.write(draft.read_bytes())
    sys.stderr.write(f"flowrun: wrote {path}\n")


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    each.__name__: each for each in (evaluate, sample, score, compare, animate)
}


# --- what they share ----------------------------------------------------------------------------


def _require(fine: bool, message: str) -> None:
    if not fine:
        raise UserError(message)


def _open(options: Namespace) -> tuple[SavedRun, int]:
    """Return the run that the options name, and how many rows to take at a time."""
    size = options.batch_size
    if size is not None:
        _require(size >= 1, f"--batch-size: {size} is refused: it should be at least 1")
    run = open_run(options.run, options.checkpoint, device=options.device)
    return run, size or run.config.evaluation.batch_size


def _seeded(options: Namespace) -> torch.Generator:
    seed = options.seed
    _require(0 <= seed < 2**63, f"--seed: {seed} is refused: it should be from 0 to 2**63 - 1")
    return torch.Generator().manual_seed(seed)


def _rows_output(name: str) -> Path | None:
    if name == "-":
        return None
    check_output(Path(name), FORMATS)
    return Path(name)


def _solved_by(run: SavedRun, options: Namespace) -> SavedRun:
    """Return the run evaluated by the solver that the options ask for, if they ask for any."""
    names = ("rtol", "atol", "step_size", "dtype")
    given = {name: v for name in names if (v := getattr(options, name)) is not None}
    method = options.solver or run.config.evaluation.solver.name
    if options.solver is None and not given:
        return run
    if not isinstance(run.flow, ContinuousFlow):
        raise UserError(
            f"{run.folder}: {run.config.model.name} solves no ODE; a solver would have no effect"
        )
    methods = (*ADAPTIVE, *FIXED)
    if method not in methods:
        raise UserError(f"--solver: {method!r} is unknown; choose from {', '.join(methods)}")
    defaults = yaml.safe_load((CONF / "solver" / f"{method}.yaml").read_text())
    if without := [name for name in given if name not in defaults]:
        option = "--" + without[0].replace("_", "-")
        has = ", ".join("--" + name.replace("_", "-") for name in names if name in defaults)
        raise UserError(f"{option}: {method} has no such setting; it has {has}")
    own = run.config.evaluation.solver.arguments()
    kept = {name: value for name, value in own.items() if name in defaults}
    return run.with_solver({**defaults, **kept, **given})


def _print_table(
    header: list[str], rows: Iterable[list[str]], *, left: int, title: str = ""
) -> None:
    """Print a table, its first columns flush left, never cut; cells may hold rich's markup."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    lines = [[Text.from_markup(cell) for cell in row] for row in rows]
    for position, (name, *cells) in enumerate(zip(header, *lines, strict=True)):
        widest = max(cell.cell_len for cell in cells)  # where space is short, headers are folded
        side: Literal["left", "right"] = "left" if position < left else "right"
        table.add_column(name, justify=side, overflow="fold", min_width=widest)
    for line in lines:
        table.add_row(*line)
    if title:
        console.print(title, markup=False, soft_wrap=True)
    # A terminal breaks lines that are longer than it; rich would drop their ends.
    least = console.measure(table, options=console.options.update(max_width=1000)).minimum
    console.print(table, width=max(least, console.width), crop=False)


def _watched(items: Iterable[T], total: int, path: Path | None) -> Iterator[T]:
    """Yield items while a bar on standard error, where that is a terminal, shows their progress."""
    console = Console(stderr=True)
    busy = path is None and sys.stdout.isatty()  # the rows scroll by themselves
    with progress.Progress(
        *progress.Progress.get_default_columns(),
        console=console,
        disable=busy or not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total)
        for item in items:
            yield item
            bar.advance(task, len(item) if isinstance(item, torch.Tensor) else 1)
