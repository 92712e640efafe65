"""Options that commands of `flowrun` share, and the types of their values."""

import argparse
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtrain.errors import ConfigError, UserError
from flowtrain.progress import doing
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.latest import followed

log = logging.getLogger("flowtrain")

if TYPE_CHECKING:
    import torch

    from flowtrain.runs.load import SavedRun


def add_run_options(command: argparse.ArgumentParser) -> None:
    """Add what names a run and says how to open it."""
    add_weights_options(command)
    command.add_argument("--device", default="auto", help="auto (default), cpu, mps, cuda, cuda:1")
    command.add_argument(
        "--batch-size", metavar="ROWS", type=at_least(1),
        help="rows at a time; bounds the memory (default: the run's evaluation.batch_size)",
    )  # fmt: skip


def add_given_option(command: argparse.ArgumentParser) -> None:
    """Add what is given of the points of a flow of p(x | c)."""
    command.add_argument(
        "--given", metavar="NAME=VALUE", nargs="+", action="extend", type=condition, default=[],
        help="of a run of p(x | c): the condition, as component=1 or species=cat age=40",
    )  # fmt: skip


def condition(text: str) -> tuple[str, str]:
    """Read a condition, NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is refused: it should be NAME=VALUE")
    return name, value


def add_weights_options(command: argparse.ArgumentParser) -> None:
    """Add what names a run and its weights."""
    command.add_argument(
        "run", metavar="RUN", type=run_folder, help="the folder of a run, or `latest`"
    )
    command.add_argument(
        "--checkpoint", choices=("best", "last"), default="best",
        help="the weights: best on the validation points (default), or last",
    )  # fmt: skip
    command.add_argument(
        "--trust-code", action="store_true",
        help="allow the Python code that the run names, where it used a piece of its user's own",
    )  # fmt: skip


def add_file_options(command: argparse.ArgumentParser) -> None:
    """Add how a file with points is read."""
    command.add_argument(
        "--columns", metavar="NAMES", type=columns,
        help="those of FILE to use, by name or by position from 0: x,y or 0,2 "
        "(default: by the names of the run's, or all)",
    )  # fmt: skip
    command.add_argument(
        "--header", choices=("auto", "true", "false"), default="auto",
        help="whether the first line of FILE holds names (default: auto)",
    )  # fmt: skip
    command.add_argument(
        "--missing", choices=("refuse", "drop"), default="refuse",
        help="what becomes of rows of FILE that lack a value (default: refuse)",
    )  # fmt: skip


def add_seed_option(command: argparse.ArgumentParser) -> None:
    """Add the seed of what is drawn."""
    command.add_argument("--seed", type=at_least(0), default=0, help="of the points (default: 0)")


def open_chosen(
    options: argparse.Namespace,
    *,
    conditional: bool = False,
    mixture: bool = False,
    continuous: str | None = None,
) -> tuple["SavedRun", int]:
    """Return the run that the options name, and how many rows to take at a time.

    A run of p(x | c) is at the condition that --given names. On the CPU batches go side by side, an
    operation on one thread: with more, models this small are slower, on a busy machine many times.

    Args:
        options: of the command.
        conditional: whether the command also takes a run of p(x | c) as it is.
        mixture: whether it also takes replicas, as their mixture.
        continuous: what a flow that is not continuous lacks for it; None takes any flow.

    Raises:
        UserError: a condition is missing, unknown, or of a run that has none; or the flow is not
            continuous.
    """
    if not mixture:
        refuse_replicas(options.run)
    with doing("loading torch"):
        import torch

        from flowtrain.batching import go_side_by_side
        from flowtrain.build import batches_at_once
        from flowtrain.runs.load import open_run
    with doing("opening the run"), of_options("trainer."):
        run = open_run(
            options.run, options.checkpoint, device=options.device, trust_code=options.trust_code
        )
    if continuous and not run.config.model.continuous:
        raise UserError(f"{run.folder}: {run.config.model.name} {continuous}")
    torch.set_num_threads(1)
    go_side_by_side(batches_at_once(run.config, run.flow.device))
    given, condition = _given(getattr(options, "given", [])), run.condition
    if condition is None and given:
        raise UserError(f"--given: {run.folder} is no run of p(x | c); leave it out")
    if condition is not None and given:
        try:
            run = run.given(condition.encode(given))
        except UserError as error:
            raise UserError(f"--given: {error}") from None
        for line in condition.beyond(given):
            log.warning("--given: %s", line)
    elif condition is not None and not conditional:
        what = "name one with --given" if hasattr(options, "given") else "this command takes p(x)"
        raise UserError(f"{run.folder} is a run of p(x | c), c: {condition}; {what}")
    return run, options.batch_size or run.config.evaluation.batch_size


@contextmanager
def of_options(prefix: str) -> Iterator[None]:
    """Tell a refused setting by the option that gave it.

    Args:
        prefix: of the keys of settings that are options here.
    """
    try:
        yield
    except ConfigError as error:
        key, colon, rest = str(error).partition(":")
        if not key.startswith(prefix):
            raise
        option = key.removeprefix(prefix).replace("_", "-")
        raise UserError(f"--{option}{colon}{rest}") from None


def refuse_replicas(folder: Path) -> None:
    """Refuse a folder of replicas where a command takes a single run.

    Raises:
        UserError: names one of them.
    """
    if there := RunFolder(folder).replicas:
        raise UserError(
            f"{folder} holds {len(there)} replicas, and this command takes one run; "
            f"try {there[0].path}"
        )


def _given(pairs: list[tuple[str, str]]) -> dict[str, str]:
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--given: {twice} is given twice")
    return given


def refuse_without_points(saved: "SavedRun", what: str) -> None:
    """Refuse to do what needs points of the data, for a run whose target has none.

    Raises:
        UserError: it has none.
    """
    if saved.config.data.splits == "none":
        raise UserError(f"{saved.folder}: {saved.config.data.name} has no points {what}")


def about(run: "SavedRun", options: argparse.Namespace) -> str:
    """Say which flow a command used: its run, its weights and, if it solves an ODE, by what."""
    told = f"{run.name} in {run.folder}, {weights(run, options)}"
    return f"{told}, {solver(run)}" if run.config.model.continuous else told


def weights(run: "SavedRun", options: argparse.Namespace) -> str:
    """Say which weights of a run were used."""
    if run.members:
        return f"{options.checkpoint} weights of each"
    return f"{options.checkpoint} weights, of step {run.step:,}"


def solver(run: "SavedRun") -> str:
    """Name the solver by which a run is evaluated, with its precision."""
    settings = run.config.evaluation.solver.model_dump()
    precise = [f"{name} {settings[name]:g}" for name in ("rtol", "atol", "step_size")
               if name in settings]  # fmt: skip
    return ", ".join([settings["name"], *precise, settings.get("dtype") or run.config.dtype])


def run_folder(text: str) -> Path:
    """Read the folder of a run; a link `latest` is followed, so that messages name the run."""
    return Path(followed(text))


def header(options: argparse.Namespace) -> Any:
    """Return the option --header as `read_table` takes it."""
    return {"auto": "auto", "true": True, "false": False}[options.header]


def seeded(options: argparse.Namespace) -> "torch.Generator":
    """Return a generator on the CPU with the seed of the options."""
    import torch

    return torch.Generator().manual_seed(options.seed)


def at_least(least: int, *, at_most: int | None = None) -> Callable[[str], int]:
    """Return a type of whole numbers from `least` on, to a bound or as many as 64 bits hold."""

    def number(text: str) -> int:
        meant = text.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+", text) else text
        if (meant != text or "e" in text.lower()) and float(meant).is_integer():
            raise argparse.ArgumentTypeError(f"{text} is refused: write {int(float(meant))}")
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is refused: it should be at least {least}")
        if at_most is not None and value > at_most:
            raise argparse.ArgumentTypeError(f"{value} is refused: it should be at most {at_most}")
        if value >= 2**63:
            raise argparse.ArgumentTypeError(f"{value} is refused: it should be below 2**63")
        return value

    number.__name__ = "whole number"  # argparse says: invalid whole number value
    return number


def quantile(text: str) -> float:
    """Read a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{value:g} is refused: it should be between 0 and 1")
    return value


def names(text: str) -> list[str]:
    """Read names that commas separate."""
    return [name.strip() for name in text.split(",")]


def column(text: str) -> str | int:
    """Read the name of a column, or its position."""
    return int(text) if text.isdecimal() else text


def columns(text: str) -> list[str | int]:
    """Read names or positions of columns that commas separate."""
    return [column(name) for name in names(text)]
