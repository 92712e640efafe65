"""How much memory there is, and how much a config would take: told before it is asked for."""

import os
from pathlib import Path

from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container that this process runs in.

    >>> memory_bytes() > 2**20
    True
    """
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return found
    return min(found, int(limit)) if limit.isdecimal() else found


def least_memory(config: Config, dim: int) -> dict[str, int]:
    """Return the bytes that each part of a run takes at least, by the key that asks for them.

    Args:
        config: of the run.
        dim: of its data.

    >>> from flowtrain.runs.load import open_run
    >>> least_memory(open_run(run_folder).config, dim=2)["splits"]  # 640 points
    46080
    """
    number = 8 if config.dtype == "float64" else 4
    nodes = config.evaluation.grid**dim if config.data.on_grid and dim <= 2 else 0
    model, rows, sizes = config.model, config.trainer.batch_size, config.splits.settings()
    sampled = ("train", "val", "test") if config.data.splits == "sampled" else ()
    points = sum(sizes[name] for name in sampled)
    # the weights, their gradients and Adam's two moments
    weights = model.weights(dim) * 4 * number
    # what a step backpropagates through; of a field, at each evaluation
    kept = model.units(dim) * config.solver.kept * number
    step = {"trainer.batch_size": rows * (kept + 8 + dim * number)}  # beside indices and points
    for key, numbers in config.objective.held(rows, dim).items():
        step[key] = step.get(key, 0) + numbers * number
    one_more = weights + points * dim * number + sum(step.values())
    return {
        "model": weights,
        # sampled in float64, in four steps, and kept in the run's dtype; one-hot in float64
        "splits": points * (dim * (4 * 8 + number) + config.data.kinds * 8),
        **step,
        "trainer.replicas": (config.trainer.replicas - 1) * one_more,
        # nodes, weights, both densities and their product, in float64
        "evaluation.grid": nodes * 6 * 8,
    }


def refuse_beyond_memory(config: Config, dim: int) -> None:
    """Refuse a run that this machine cannot hold.

    Raises:
        ConfigError: says how much it would take, and which key asks for most of it.

    >>> from flowtrain.runs.load import open_run
    >>> refuse_beyond_memory(open_run(run_folder).config, dim=2)
    """
    parts, there = least_memory(config, dim), memory_bytes()
    total = sum(parts.values())
    if total > there:
        key = max(parts, key=lambda each: parts[each])
        raise ConfigError(
            f"{key}: {in_words(parts[key])} of memory at least, {in_words(total)} with the rest; "
            f"this machine has {in_words(there)}: ask for less"
        )


def in_words(number: int) -> str:
    """Write a number of bytes.

    >>> in_words(1500), in_words(3 * 10**12)
    ('1.5 kB', '3 TB')
    """
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min((len(str(number)) - 1) // 3, len(units) - 1)
    return f"{number / 1000**power:.3g} {units[power]}"
