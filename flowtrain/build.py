"""From a validated config to what it names: density, flow, objective, optimizer, device."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flowtrain.config import (
    FFJORD,
    Config,
    Constant,
    Cosine,
    CouplingStack,
    MaximumLikelihood,
    NoSolver,
    Split,
)
from flowtrain.config import FlowMatching as FlowMatchingConfig
from flowtrain.config import Solver as SolverConfig
from flowtrain.config import Table as TableConfig
from flowtrain.data import DENSITIES, Density
from flowtrain.data.datasets import check, load_sklearn, split
from flowtrain.data.pools import Pool, draw_pool
from flowtrain.data.tables import Table, read_table
from flowtrain.errors import ConfigError, UserError
from flowtrain.flows import ELEMENTWISE, FLOWS, Flow, Standardize
from flowtrain.flows.ode import Solver
from flowtrain.objectives import (
    FlowMatching,
    Objective,
    RegularizedLikelihood,
    maximum_likelihood,
)

log = logging.getLogger("flowtrain")

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_density(config: Config) -> Density:
    """Build the law that `data` names.

    Raises:
        ConfigError: for parameters that the law refuses, or whose entropy is out of reach.
    """
    try:
        density = DENSITIES[config.data.name](**config.data.arguments())
        _ = density.entropy  # computed here, so that it is refused here
        return density
    except ValueError as error:
        raise ConfigError(f"data: {error}") from None


def build_pools(config: Config, device: torch.device) -> dict[str, Pool]:
    """Draw the points that `pools` asks for from the law, or deal those of the table.

    Returns:
        Pools called train, validation and test.

    Raises:
        UserError: the law or the table cannot be used; says where and why.
    """
    kind: dict[str, Any] = {"device": device, "dtype": getattr(torch, config.dtype)}
    if isinstance(config.pools, Split):
        table = build_table(config)
        return {
            name: Pool(rows.to(**kind), columns=table.columns, levels=table.levels)
            for name, rows in split(table.values, **config.pools.arguments()).items()
        }
    density, seeds = build_density(config), derive_seeds(config)
    return {
        name: draw_pool(density, size, seeds[name], **kind)
        for name, size in config.pools.arguments().items()
    }


def build_table(config: Config) -> Table:
    """Read the points that `data` names, and log what makes their likelihood doubtful.

    Raises:
        UserError: a file that cannot be read as finite numbers, or a constant column.
    """
    if isinstance(config.data, TableConfig):
        table = read_table(**config.data.arguments())
    else:
        # The noise of dequantisation belongs to the data: it is the same for every run's seed.
        table = load_sklearn(config.data.name, generator=torch.Generator().manual_seed(0))
    try:
        for warning in check(table.values, table.columns):
            log.warning("data: %s", warning)
    except UserError as error:
        raise UserError(f"data: {error}") from None
    return table


def derive_seeds(config: Config) -> dict[str, int]:
    """Return independent seeds of the weights, the batches and each pool, all from `seed`."""
    names = ("weights", "batches", "train", "validation", "test")
    master = torch.Generator().manual_seed(config.seed)
    drawn = torch.randint(2**62, (len(names),), generator=master)
    return dict(zip(names, drawn.tolist(), strict=True))


def build_flow(config: Config, mean: Tensor, std: Tensor, *, seed: int) -> Flow:
    """Build the flow that `model` names, its weights drawn from the seed alone, on the CPU.

    Args:
        config: the run's config.
        mean: of the training points, (d,).
        std: of the training points, (d,).
        seed: of the weights and of whatever else the model draws once.
    """
    generator = torch.Generator().manual_seed(seed)
    settings = config.model.arguments()
    if isinstance(config.model, FFJORD):
        settings["evaluation_solver"] = build_solver(config.evaluation.solver)
        settings["solver"] = settings["evaluation_solver"]  # where training solves nothing
        if not isinstance(config.solver, NoSolver):
            settings["solver"] = build_solver(config.solver)
    elif isinstance(config.model, CouplingStack):
        elementwise = config.model.elementwise
        settings["elementwise"] = ELEMENTWISE[elementwise.name](**elementwise.arguments())
    # nn.Linear draws its weights from torch's global generator: lend it ours.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = FLOWS[config.model.name](Standardize(mean, std), generator=generator, **settings)
    return flow.to(getattr(torch, config.dtype))


def build_solver(config: SolverConfig) -> Solver:
    """Build the ODE solver that a `solver` group names."""
    settings = config.arguments()
    dtype = None if settings["dtype"] is None else getattr(torch, settings["dtype"])
    return Solver(config.name, **{**settings, "dtype": dtype})


@dataclass(frozen=True)
class Part:
    """A part of a run: what it minimises, until which fraction of the run, at which rate."""

    objective: Objective
    until: float
    peak: float  # learning rate


def build_parts(config: Config) -> list[Part]:
    """Build the run's objectives, in their order; each has the learning rate's whole course."""
    lr, objective = config.optimizer.lr, config.objective
    likelihood: Objective = maximum_likelihood
    if isinstance(config.model, FFJORD):
        likelihood = RegularizedLikelihood(**config.regularization.arguments())
    if isinstance(objective, MaximumLikelihood):
        return [Part(likelihood, 1.0, lr)]
    matching = FlowMatching(objective.coupling, objective.path, objective.times)
    if isinstance(objective, FlowMatchingConfig):
        return [Part(matching, 1.0, lr)]
    return [Part(matching, objective.switch, lr), Part(likelihood, 1.0, objective.likelihood_lr)]


def build_optimizer(config: Config, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer that `optimizer` names, in torch's fused form: one call a step."""
    return OPTIMIZERS[config.optimizer.name](parameters, **config.optimizer.arguments(), fused=True)


def part_at(parts: Sequence[Part], done: float) -> tuple[Part, float]:
    """Return the part that a run is in after a fraction `done`, and how much of it is done."""
    since = 0.0
    for part in parts:
        if done < part.until:
            return part, (done - since) / (part.until - since)
        since = part.until
    return parts[-1], 1.0


def learning_rate(schedule: Constant | Cosine, peak: float, done: float) -> float:
    """Return the learning rate after a fraction `done` of a part of the run, in [0, 1]."""
    if done < schedule.warmup:  # 1. a linear rise
        return peak * done / schedule.warmup
    if isinstance(schedule, Constant):  # 2. level to the end
        return peak
    fallen = (done - schedule.warmup) / (1 - schedule.warmup)  # 3. half a cosine
    return peak * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * fallen)))


def pick_device(name: str, dtype: str) -> torch.device:
    """Return the device that `trainer.device` asks for; auto takes cuda, then mps, then cpu.

    Raises:
        ConfigError: for a device that this machine does not have, or that lacks the dtype.
    """
    accelerators = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("mps")
    first = accelerators[0] if accelerators else "cpu"
    chosen = {"auto": first, "cuda": "cuda:0"}.get(name, name)
    if chosen not in ("cpu", *accelerators):
        here = ", ".join(["cpu", *accelerators])
        raise ConfigError(f"trainer.device: {name} is not on this machine; it has {here}")
    if chosen == "mps" and dtype == "float64":
        raise ConfigError("dtype: mps has no float64; use float32 or trainer.device=cpu")
    return torch.device(chosen)
