"""From a validated config to what it names: splits, flow, seeds, device."""

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from flowtrain.batching import CORES, MOST
from flowtrain.config.data import Data, Known, Rows
from flowtrain.config.memory import in_words, memory_bytes
from flowtrain.config.own_code import in_one_line
from flowtrain.config.schema import Config
from flowtrain.data.check import check_rows, refuse_constant
from flowtrain.data.dequantize import dequantize
from flowtrain.data.read import MissingError, Table
from flowtrain.data.splits import Split, Splits
from flowtrain.densities.check import check_components, check_density
from flowtrain.densities.conditional import Components, Conditional
from flowtrain.densities.density import Density
from flowtrain.densities.interval import Interval, Rotations, Varied
from flowtrain.densities.target import Target
from flowtrain.errors import ConfigError, UserError
from flowtrain.flows.check import check_field
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.whiten import Whiten

log = logging.getLogger("flowtrain")

_SEEDING = threading.Lock()


def build_data(config: Config) -> Density | Conditional | Table:
    """Build the density that `data` names, p(x) or p(x | c), or read its points.

    Raises:
        UserError: parameters that the density refuses, an entropy that is out of reach, a file
            that cannot be read as finite numbers, a constant column, a failure in code of the
            user's own.

    >>> from flowtrain.runs.load import open_run
    >>> build_data(open_run(run_folder).config).sample(5, torch.Generator()).shape
    torch.Size([5, 2])
    """
    target = config.own_code.get("data.target")
    with _refusals("data", own=target and f"data: {target}"):
        if isinstance(config.data, Rows):
            table = _read(config.data)
            for warning in check_rows(table.values, table.columns):
                log.warning("data: %s", warning)
            return table
        density = _law(config.data, own=target is not None)
        known = isinstance(density, Conditional) or density.normalized
        if known and not math.isfinite(density.entropy):  # computed, and so refused, here
            raise ValueError(f"the entropy of this density is {density.entropy:g}")
    return density


def _read(section: Rows) -> Table:
    """Read the points of a section, and log what became of its columns."""
    try:
        table: Table = section.build().marked()
    except MissingError as error:
        raise UserError(f"{error}; data.missing=drop leaves such rows out") from None
    if table.left_out:
        log.info("data: %s", table.left_out)
    refuse_constant(table.values, table.columns)
    notes: list[str] = []
    if section.dequantize:
        table, notes = dequantize(table)
    for note in notes:
        log.info("data: %s", note)
    return table


def _law(section: Data, *, own: bool) -> Density | Conditional:
    """Build the density that a section names, or the law of its points given its condition.

    Args:
        section: of a known density.
        own: whether the user's own code builds it, which is held to the contract.

    Raises:
        ValueError: the density, its condition or its interval is refused.
    """

    def build(part: Data) -> Density:
        density: Density = part.build()
        if own and not isinstance(density, Target):  # which has checked what it is made of
            check_density(density)
        return density

    if not isinstance(section, Known) or section.condition is None:
        return build(section)
    if section.interval is None:
        density = build(section)
        if own:
            check_components(density)
        return Components(density)
    interval = Interval(*section.interval)
    if section.condition == "rotation":
        return Rotations(build(section), interval)
    if own:
        for end in section.interval:
            build(section.at(end))
    return Varied(section.condition, lambda value: section.at(value).build(), interval)


def build_density(config: Config) -> Density | Conditional | None:
    """Build the density that `data` names, p(x) or p(x | c); None where none is known.

    Raises:
        UserError: as `build_data`.

    >>> from flowtrain.runs.load import open_run
    >>> round(build_density(open_run(run_folder).config).entropy, 4)
    2.3178
    """
    if not config.data.known:
        return None
    data = build_data(config)
    assert not isinstance(data, Table)
    return data


def build_splits(config: Config, device: torch.device) -> Splits:
    """Sample the train, val and test splits from the density, or split the table's rows.

    Raises:
        UserError: the density or the table cannot be used; says where and why.

    >>> from flowtrain.runs.load import open_run
    >>> splits = build_splits(open_run(run_folder).config, torch.device("cpu"))
    >>> splits.train.x.shape, splits.val.x.shape, splits.train.x.dtype
    (torch.Size([512, 2]), torch.Size([64, 2]), torch.float32)
    """
    return split_data(config, build_data(config), device)


def split_data(config: Config, data: Density | Conditional | Table, device: torch.device) -> Splits:
    """Sample the splits of a run from a density, or split a table's rows, as `splits` says.

    Raises:
        UserError: a split would have too few rows.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> split_data(run.config, run.density, torch.device("cpu")).test.x.shape
    torch.Size([64, 2])
    """
    splits: Splits = config.splits.build(
        data,
        seeds=derive_seeds(config),
        device=device,
        dtype=getattr(torch, config.points_dtype),
    )
    return splits


def derive_seeds(config: Config) -> dict[str, int]:
    """Return independent seeds of the weights, the batches and each split, all from `seed`.

    >>> from flowtrain.runs.load import open_run
    >>> seeds = derive_seeds(open_run(run_folder).config)
    >>> list(seeds), len(set(seeds.values()))
    (['weights', 'batches', 'train', 'val', 'test'], 5)
    """
    names = ("weights", "batches", "train", "val", "test")
    master = torch.Generator().manual_seed(config.seed)
    drawn = torch.randint(2**62, (len(names),), generator=master)
    return dict(zip(names, drawn.tolist(), strict=True))


def fit_whitening(config: Config, train: Split) -> Standardize | Whiten:
    """Fit the fixed map that `model.whitening` names to the training points, on the CPU.

    A posterior's are not used: there it is fitted to as many points of its approximation.

    Raises:
        UserError: a column is constant over the training rows, or spans more than float64 can.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> fit_whitening(run.config, run.splits.train).mean.shape
    torch.Size([2])
    """
    x = train.x
    if isinstance(train.density, Density) and train.density.approximation is not None:
        x = train.density.approximation.sample(len(x), torch.Generator().manual_seed(0)).to(x)
    if config.model.whitening == "columns":
        constant = (x.amin(0) == x.amax(0)).nonzero()  # a deviation may be a rounding above 0
        if len(constant):
            raise UserError(
                f"data: column {int(constant[0])} (from 0) is constant over the {len(x)} training "
                "rows"
            )
        return Standardize(x.mean(0).cpu(), x.std(0).cpu())
    try:
        return Whiten.fit(x, bend=config.model.whitening == "johnson")
    except ValueError as error:
        raise UserError(f"data: {error}") from None


def blank_whitening(config: Config, dim: int) -> Standardize | Whiten:
    """Return a fixed map of the kind that `model.whitening` names, to load a saved one into.

    >>> from flowtrain.runs.load import open_run
    >>> blank_whitening(open_run(run_folder).config, 2).dim
    2
    """
    if config.model.whitening == "columns":
        return Standardize(torch.zeros(dim), torch.ones(dim))
    return Whiten.blank(dim)


def build_flow(
    config: Config, standardize: Standardize | Whiten, *, seed: int, context_dim: int = 0
) -> Flow:
    """Build the flow that `model` names, its weights drawn from the seed alone, on the CPU.

    Args:
        config: the run's config.
        standardize: the fixed map to data coordinates; it has the dimension.
        seed: of the weights and of whatever else the model draws once.
        context_dim: numbers of a condition; 0 where there is none.

    Raises:
        ConfigError: the model does not fit the data, or a field of the user's own is refused.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config
    >>> flow = build_flow(config, blank_whitening(config, 2), seed=0)
    >>> config.model.name, sum(weight.numel() for weight in flow.parameters())
    ('realnvp', 68)
    """
    dim = len(next(standardize.buffers()))
    weights = config.model.weights(dim) * (8 if config.dtype == "float64" else 4)
    if weights > memory_bytes():
        raise ConfigError(
            f"model: {in_words(weights)} of weights; this machine has {in_words(memory_bytes())} "
            "of memory: ask for a smaller one"
        )
    settings: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed)}
    if config.model.continuous:
        settings["solver"] = config.evaluation.solver
    if context_dim:
        settings["context_dim"] = context_dim
    own = "model.field" if "model.field" in config.own_code else None
    # nn.Linear draws its weights from torch's global generator: lend it ours, one thread at a time.
    with _refusals("model", own=own), _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow: Flow = config.model.build(standardize, **settings)
        flow.base = config.model.build_base(flow.dim, generator=settings["generator"])
        if own is not None and isinstance(flow, ContinuousFlow):
            check_field(flow.cnf.field, flow.dim, context_dim)
    return flow.to(getattr(torch, config.dtype))


@contextmanager
def _refusals(group: str, *, own: str | None) -> Iterator[None]:
    """Tell what an object refuses as a mistake in the config's group.

    Args:
        group: of the config.
        own: what to blame for any other failure, where code of the user's own runs; else None.

    Raises:
        ConfigError: in one line.
    """
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{group}: {error}") from None
    except UserError:
        raise
    except Exception as error:
        if own is None and isinstance(error, ArithmeticError):
            raise ConfigError(f"{group}: too large or too small to compute with: {error}") from None
        if own is None:
            raise
        raise ConfigError(f"{own}: {in_one_line(error)}") from error


def pick_device(name: str, dtype: str) -> torch.device:
    """Return the device that `trainer.device` asks for; auto takes cuda, then mps, then cpu.

    Args:
        name: auto, cpu, mps, cuda, which is this process's current GPU, or cuda:<index>.
        dtype: that the device must have, "float32" or "float64".

    Raises:
        ConfigError: for a device that this machine does not have, or that lacks the dtype.

    >>> pick_device("cpu", "float64")
    device(type='cpu')
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    here = ["cpu", *gpus, *["mps"] * torch.backends.mps.is_available()]
    chosen = name
    if gpus and name in ("auto", "cuda"):
        chosen = f"cuda:{torch.cuda.current_device()}"
    elif name == "auto":
        chosen = here[-1] if dtype == "float32" else "cpu"
    if chosen not in here:
        raise ConfigError(
            f"trainer.device: {name} is not on this machine; it has {', '.join(here)}"
        )
    if chosen == "mps" and dtype == "float64":
        raise ConfigError(
            "trainer.device: mps has no float64, which dtype=float64 and tables need; use cpu"
        )
    return torch.device(chosen)


def batches_at_once(config: Config, device: torch.device) -> int:
    """Return how many batches of an evaluation go side by side.

    One on a GPU, which a batch fills, and where a flow's code may not be made for threads: the
    user's own, and another library's.

    >>> from flowtrain.runs.load import open_run
    >>> 1 <= batches_at_once(open_run(run_folder).config, torch.device("cpu")) <= MOST
    True
    """
    foreign = config.own_code or not config.model.threads_share
    return 1 if device.type != "cpu" or foreign else min(CORES, MOST)
