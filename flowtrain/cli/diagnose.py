"""`flowrun diagnose`: whether a flow is good, and where it is not, in words and on one page."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

if TYPE_CHECKING:
    from flowtrain.evaluation.diagnosis import Diagnosis

SUMMARY = "say whether a run's flow fits its test points, and where it does not"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    shared.add_given_option(command)
    command.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path,
        help="for diagnosis.json and diagnosis.png (default: the run's folder)",
    )  # fmt: skip
    shared.add_seed_option(command)


def run(options: argparse.Namespace) -> None:
    """Test a flow, write a page and its figures, and print what was found in words."""
    from rich.markup import escape

    from flowtrain.cli.console import print_table, say, working

    with working():
        found, folder = _write(options)
    if found.by_condition:
        rows = [
            [escape(group.label), f"{group.points:,}", f"{group.nll:.4f}",
             f"{group.coverage[0.5]:.1%}", f"{group.coverage_p_value:.2g}",
             f"{group.base_p_value:.2g}"]
            for group in found.by_condition
        ]  # fmt: skip
        header = ["condition", "points", "NLL", "in the region of 50%", "p, coverage", "p, base"]
        title = "p of each test by itself, not corrected for the number of tests"
        print_table(header, rows, left=1, title=title)
    words = [*found.findings()]
    sys.stdout.writelines(f"{'fits' if good else 'off ':<5} {line}\n" for good, line in words)
    off = sum(not good for good, _ in words)
    sys.stdout.write(
        f"{len(words) - off} of {len(words)} tests find nothing, by {found.points:,} test points\n"
    )
    say(f"wrote {folder / 'diagnosis.json'} and diagnosis.png")


def _write(options: argparse.Namespace) -> tuple["Diagnosis", Path]:
    """Write the diagnosis; return it and its folder."""
    with doing("loading torch"):
        from flowtrain.evaluation.diagnose import diagnose
        from flowtrain.evaluation.diagnosis_figure import diagnosis_figure
        from flowtrain.evaluation.images import save_figure
        from flowtrain.files import json_text, writing

    saved, batch_size = shared.open_chosen(options, conditional=True)
    shared.refuse_without_points(saved, "to diagnose by")
    folder = options.output or saved.folder
    density = saved.law if saved.context is None else saved.density
    try:
        with doing("diagnosing"):
            found, evidence = diagnose(
                saved.flow, saved.splits.test, saved.splits.train,
                columns=saved.columns, density=density, generator=shared.seeded(options),
                batch_size=batch_size,
            )  # fmt: skip
    except ValueError as error:
        raise UserError(f"{saved.folder}: {error}") from None
    config = saved.config
    with doing("drawing"):
        figure = diagnosis_figure(
            found,
            evidence,
            columns=saved.columns,
            title=f"{saved.name}, seed {config.seed}, step {saved.step:,}",
        )  # fmt: skip
        with writing(folder / "diagnosis.json") as file:
            file.write(f"{json_text(found.as_json(), indent=2)}\n".encode())
        with writing(folder / "diagnosis.png") as file:
            save_figure(figure, file, ".png", dpi=150)
    return found, folder
