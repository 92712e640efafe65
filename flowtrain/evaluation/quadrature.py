"""KL(data | model) and the model's mass by quadrature over the window of a known density."""

import math
from collections.abc import Callable

from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.densities.conditional import Case, Conditional
from flowtrain.densities.density import Density
from flowtrain.flows.flow import Flow
from flowtrain.progress import doing

SEEN = 0.2  # of the mass of p may be missed by a grid, or be too much, for KL to be worth telling
TAIL = 1e-6  # of the mass of p, left out of KL by quadrature
FEWEST = 64  # nodes per axis of the window of a conditional law's case


def quadrature(flow: Flow, density: Density, *, points: int, batch_size: int) -> dict[str, float]:
    """Return KL(p|q) in nats and the mass of q by quadrature over the window of p.

    `kl_error` is the change of KL from a grid of half as many points per axis. Both are NaN where
    the grid is so coarse that it does not see the mass of p.

    Args:
        flow: the model.
        density: p.
        points: nodes per axis.
        batch_size: rows at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> found = quadrature(run.flow, run.density, points=128, batch_size=4096)
    >>> found["kl"] > 0, round(found["mass"], 3)
    (True, 1.0)
    """

    def log_q(nodes: Tensor) -> Tensor:
        return flow.log_prob(nodes.to(flow.device, flow.points_dtype))

    kl, mass, seen = integrate(log_q, density, points=points, batch_size=batch_size)
    coarse, _, _ = integrate(log_q, density, points=points // 2, batch_size=batch_size)
    # A grid that misses the density, or meets it by chance, says nothing of KL.
    if abs(seen - 1) > SEEN:
        kl = math.nan
    return {"kl": kl, "kl_error": abs(kl - coarse), "mass": mass}


def quadratures(
    flow: Flow, law: Conditional, *, points: int, batch_size: int
) -> list[tuple[Case, dict[str, float]]]:
    """Return KL(p|q) in nats and the mass of q at each case of a conditional law.

    Args:
        flow: the model, q(x | c).
        law: p(x | c).
        points: nodes per axis in the window of all; the narrower one of a case has fewer.
        batch_size: rows at a time.

    >>> from flowtrain.densities import Rings
    >>> from flowtrain.densities.conditional import Components
    >>> from flowtrain.flows import Standardize
    >>> from flowtrain.flows.linear import affine
    >>> unit = Standardize(torch.zeros(2), torch.ones(2))
    >>> flow = affine(unit, generator=torch.Generator(), context_dim=2)
    >>> law = Components(Rings(radii=[1.0, 2.0], noise=0.1))
    >>> found = quadratures(flow, law, points=128, batch_size=4096)
    >>> [(case.label, round(figures["kl"], 2)) for case, figures in found]
    [('component=0', 1.4), ('component=1', 2.2)]
    """
    whole = float((law.window[1] - law.window[0]).max())
    found = []
    for case in law.cases:
        low, high = case.density.window
        nodes = max(FEWEST, math.ceil(points * float((high - low).max()) / whole))
        given = flow.given(case.context.to(flow.device, flow.dtype))
        with doing(case.label):
            found.append(
                (case, quadrature(given, case.density, points=nodes, batch_size=batch_size))
            )
    return found


def averaged(by_case: list[tuple[Case, dict[str, float]]]) -> dict[str, float]:
    """Return the mean of each figure over the cases of a conditional law, by their weights.

    >>> from flowtrain.densities import Rings
    >>> from flowtrain.densities.conditional import Components
    >>> cases = Components(Rings(radii=[1.0, 2.0], noise=0.1)).cases
    >>> averaged([(cases[0], {"kl": 0.1}), (cases[1], {"kl": 0.3})])
    {'kl': 0.2}
    """
    (_, first), *_ = by_case
    return {name: sum(case.weight * each[name] for case, each in by_case) for name in first}


def integrate(
    log_prob: Callable[[Tensor], Tensor], density: Density, *, points: int, batch_size: int
) -> tuple[float, float, float]:
    """Return KL(p|q) in nats, the mass of q and the mass of p by one grid over the window of p.

    KL is the mean over the nodes that hold all but `TAIL` of the mass that the grid sees: beyond
    them no sample ever falls, and a log q of -1e16 out there would drown what can be measured.

    Args:
        log_prob: log q in nats at nodes, (n, d) in float64 on the CPU -> (n,).
        density: p.
        points: nodes per axis.
        batch_size: rows at a time.

    >>> from flowtrain.densities import Rings
    >>> ring = Rings(radii=[1.0], noise=0.1)
    >>> kl, *masses = integrate(ring.log_prob, ring, points=128, batch_size=4096)
    >>> kl, [round(mass, 4) for mass in masses]
    (0.0, [1.0, 1.0])
    """
    nodes, weights = density.quadrature(points)
    log_p = density.log_prob(nodes)
    with doing(f"quadrature, {' x '.join([str(points)] * density.dim)}"):
        log_q = in_batches(log_prob, nodes, batch_size).cpu().double()
    mass_p = weights * log_p.exp()
    order, seen = mass_p.argsort(descending=True), mass_p.sum()
    kept = mass_p[order].cumsum(0) <= (1 - TAIL) * seen
    inside = order[kept & (mass_p[order] > 0)]
    kl = mass_p[inside] @ (log_p - log_q)[inside] / seen
    return float(kl), float(weights @ log_q.exp()), float(seen)
