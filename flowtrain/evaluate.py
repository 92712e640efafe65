"""The truth about a trained flow: NLL, KL by quadrature and by Monte Carlo, mass, baselines."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowtrain.baselines import gaussian_nll, kde_nll
from flowtrain.data import Density
from flowtrain.data.datasets import bits_per_dimension
from flowtrain.data.pools import Pool
from flowtrain.distances import POINTS, sample_distances
from flowtrain.flows import ContinuousFlow, Flow
from flowtrain.flows.ode import SolverError

TAIL = 1e-6  # of the mass of p, left out of KL by quadrature
SOME = 2_000  # points tell a solver's gap and an inverse's error as well as a whole pool would


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
    """Apply a function to the rows of x, so many at a time, and join what it returns."""
    return torch.cat([function(rows) for rows in x.split(batch_size)])


def likelihood(flow: Flow, pool: Pool, *, batch_size: int) -> dict[str, float]:
    """Return the NLL of a pool and, where its law is known, the KL by the same points, in nats.

    Beside each stands its standard error; the paired mean of log p - log q has a fraction of the
    NLL's.
    """
    log_q = in_batches(flow.log_prob, pool.x, batch_size).cpu().double()
    found = {"nll": -log_q.mean().item(), "nll_error": _standard_error(log_q)}
    if pool.density is not None:
        gap = pool.log_p - log_q
        found |= {"kl": gap.mean().item(), "kl_error": _standard_error(gap)}
    return found


def _standard_error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else math.nan


def progress_figures(
    flow: Flow, train: Pool, validation: Pool, *, batch_size: int
) -> dict[str, float]:
    """Return what training is watched by: NLL of both pools, KL on the validation points."""
    like_validation = Pool(train.x[: len(validation.x)])
    metrics = {"nll/train": likelihood(flow, like_validation, batch_size=batch_size)["nll"]}
    for name, value in likelihood(flow, validation, batch_size=batch_size).items():
        metrics[f"{name}/val"] = value
    gap = solver_gap(flow, validation.x[:SOME], batch_size=batch_size)
    return metrics | {f"{name}/val": value for name, value in gap.items()}


def solver_gap(flow: Flow, x: Tensor, *, batch_size: int) -> dict[str, float]:
    """Return the NLL in nats by the training solver, what training believes, minus the true one.

    There is none where nothing is solved, where training and evaluation solve alike, or where the
    training solver fails.
    """
    if not (isinstance(flow, ContinuousFlow) and flow.cnf.has_training_solver):
        return {}
    try:
        trained = flow.with_solver(flow.cnf.solver)
        claimed = likelihood(trained, Pool(x), batch_size=batch_size)["nll"]
    except SolverError:
        return {}
    return {"solver_gap": claimed - likelihood(flow, Pool(x), batch_size=batch_size)["nll"]}


def evaluate(flow: Flow, pools: dict[str, Pool], *, grid: int, batch_size: int) -> dict[str, float]:
    """Return every figure of a trained flow, by tag, in nats and in the data's coordinates.

    Where the law is known that is its KL, by quadrature and by the test points; elsewhere the
    NLL stands beside two baselines'.

    Args:
        flow: in evaluation mode.
        pools: train, validation and test, of the law it learned.
        grid: quadrature nodes per axis.
        batch_size: rows at a time.
    """
    density = pools["test"].density
    metrics = progress_figures(flow, pools["train"], pools["validation"], batch_size=batch_size)
    paired = likelihood(flow, pools["test"], batch_size=batch_size)
    metrics["nll/test"], metrics["nll_error/test"] = paired["nll"], paired["nll_error"]
    if density is None:
        metrics |= without_density(flow, pools, metrics["nll/test"])
    else:
        metrics["kl_paired/test"], metrics["kl_paired_error/test"] = (
            paired["kl"],
            paired["kl_error"],
        )
        for name, value in quadrature(flow, density, points=grid, batch_size=batch_size).items():
            metrics[f"{name}/test"] = value
        metrics["nll/entropy"] = density.entropy
    some = pools["test"].x[:SOME]
    found = inverse_error(flow, some, batch_size=batch_size)
    found |= solver_gap(flow, some, batch_size=batch_size)
    return metrics | {f"{name}/test": value for name, value in found.items()}


def without_density(flow: Flow, pools: dict[str, Pool], nll: float) -> dict[str, float]:
    """Return what stands in for KL where nobody knows the law: baselines and sample distances.

    Chance comes from seed 0: the figures are of the flow and the points alone.
    """
    train, test = pools["train"].x, pools["test"].x
    metrics = {
        "nll_gaussian/test": gaussian_nll(train, test).nll,
        "nll_kde/test": kde_nll(train, test, seed=0).nll,
    }
    if pools["test"].levels is not None:
        metrics["bits_per_dimension/test"] = bits_per_dimension(
            nll, dim=flow.dim, levels=pools["test"].levels
        )
    generator = torch.Generator().manual_seed(0)
    samples = flow.sample(min(len(test), POINTS), generator)
    return metrics | sample_distances(samples, test, generator=generator)


def quadrature(flow: Flow, density: Density, *, points: int, batch_size: int) -> dict[str, float]:
    """Return KL(p|q) in nats and the mass of q by quadrature over the window of p.

    `kl_error` is the change of KL from a grid of half as many points per axis.
    """
    kl, mass = _integrate(flow, density, points, batch_size)
    coarse, _ = _integrate(flow, density, points // 2, batch_size)
    return {"kl": kl, "kl_error": abs(kl - coarse), "mass": mass}


def _integrate(flow: Flow, density: Density, points: int, batch_size: int) -> tuple[float, float]:
    nodes, weights = density.quadrature(points)
    log_p = density.log_prob(nodes)
    log_q = in_batches(flow.log_prob, nodes.to(flow.like), batch_size).cpu().double()
    mass_p = weights * log_p.exp()
    # KL is taken over the nodes that hold all but TAIL of the mass: beyond them no sample ever
    # falls, and a log q of -1e16 out there would drown what can be measured.
    order = mass_p.argsort(descending=True)
    inside = order[mass_p[order].cumsum(0) <= 1 - TAIL]
    kl = mass_p[inside] @ (log_p - log_q)[inside]
    return float(kl), float(weights @ log_q.exp())


@torch.no_grad()
def inverse_error(flow: Flow, x: Tensor, *, batch_size: int) -> dict[str, float]:
    """Return the largest and the rms entry of x - forward(inverse(x)), in the data's units."""
    error = in_batches(lambda rows: rows - flow.transport(flow.inverse(rows)[0]), x, batch_size)
    return {
        "inverse_error": error.abs().max().item(),
        "inverse_error_rms": error.square().mean().sqrt().item(),
    }
