"""`flowrun steps`: what a sampler of few steps costs, as the KL of the law it really has."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowtrain.cli import options as shared
from flowtrain.config.methods import METHODS
from flowtrain.errors import UserError
from flowtrain.progress import doing, part

if TYPE_CHECKING:
    from flowtrain.evaluation.few_steps import FewSteps
    from flowtrain.runs.load import SavedRun

SUMMARY = "measure a continuous flow's sampler of few steps: KL against evaluations"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    shared.add_given_option(command)
    command.add_argument(
        "--steps", metavar="NUMBERS", type=numbers(shared.at_least(1)), default=[1, 2, 4, 8, 16],
        help="how many steps, several by commas (default: 1,2,4,8,16)",
    )  # fmt: skip
    command.add_argument(
        "--solver", choices=[*METHODS], default="euler", help="what takes them (default: euler)"
    )
    command.add_argument(
        "-n", type=shared.at_least(2), default=10_000, help="samples (default: 10000)"
    )
    shared.add_seed_option(command)


def numbers(number: Callable[[str], int]) -> Callable[[str], list[int]]:
    """Return a type of several whole numbers that commas separate."""

    def several(text: str) -> list[int]:
        return [number(each) for each in text.split(",")]

    several.__name__ = "list of whole numbers"  # argparse says: invalid ... value
    return several


def run(options: argparse.Namespace) -> None:
    """Print KL(model | data) of the law that each number of steps has."""
    from flowtrain.cli.console import print_table, say, working

    with working():
        saved, found, straight = measure(options)
    header = ["steps", "evaluations", "KL(model | data)", "ESS", "folded"]
    title = f"{saved.name}, {options.solver}, in nats"
    print_table(header, map(cells, found), left=0, title=title)
    print(
        f"straightness {straight:.4f}: E|z_1 - z_0 - dz/dt|² on the flow's own paths, 0 if straight"
    )
    say(f"measured {options.n:,} samples of {shared.about(saved, options)}, seed {options.seed}")


def measure(options: argparse.Namespace) -> tuple["SavedRun", list["FewSteps"], float]:
    """Return the run, what its sampler gives by each number of steps, and its straightness."""
    lacking = "takes no steps; name a run of a continuous flow"
    saved, batch_size = shared.open_chosen(options, continuous=lacking)
    from flowtrain.evaluation.few_steps import few_steps, straightness
    from flowtrain.flows.continuous import ContinuousFlow

    assert isinstance(saved.flow, ContinuousFlow)
    if saved.density is None or not saved.density.normalized:
        raise UserError(f"{saved.folder}: KL needs data whose density is known")
    z = saved.flow.sample_base(options.n, shared.seeded(options))
    found: list[FewSteps] = []
    total = sum(options.steps)
    with doing("measuring"):
        before = 0
        for steps in options.steps:
            with part(before / total, (before + steps) / total):
                found.append(
                    few_steps(
                        saved.flow, saved.density, z, steps=steps, method=options.solver,
                        batch_size=batch_size,
                    )
                )  # fmt: skip
            before += steps
    with doing("straightness"):
        return saved, found, straightness(saved.flow, z[:2_000])


def cells(found: "FewSteps") -> list[str]:
    """Return a row of the table."""
    kl = "infinite"
    if "kl_reverse" in found.metrics:
        bound = ">= " if found.folded else ""
        error = found.metrics["kl_reverse_error"]
        kl = f"{bound}{found.metrics['kl_reverse']:.4f} ± {error:.4f}"
    ess, folded = f"{found.metrics['ess']:.3f}", f"{found.folded:.1%}"
    return [f"{found.steps}", f"{found.evaluations}", kl, ess, folded]
