"""The law that a sampler of few steps really has, and how straight a flow's paths are."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.config.methods import METHODS
from flowtrain.config.solver import FixedStep
from flowtrain.densities.density import Density
from flowtrain.evaluation.reverse import weights_of
from flowtrain.flows.continuous import ContinuousFlow


@dataclass(frozen=True)
class FewSteps:
    """What a sampler of so many steps gives.

    Attributes:
        steps: that it takes.
        evaluations: of the velocity.
        folded: the part of the samples at which a step turns space inside out. There the map is
            not one to one, and KL is a lower bound.
        metrics: `kl_reverse`, its standard error and `ess`, of its law against the data's.

    >>> FewSteps(steps=2, evaluations=4, folded=0.0, metrics={"ess": 0.9}).evaluations
    4
    """

    steps: int
    evaluations: int
    folded: float
    metrics: dict[str, float]


@torch.no_grad()
def few_steps(
    flow: ContinuousFlow,
    density: Density,
    z: Tensor,
    *,
    steps: int,
    method: str,
    batch_size: int = 10_000,
) -> FewSteps:
    """Measure the law of a sampler that takes equal steps, exactly: no ODE is assumed solved.

    A step is a map of z alone, and its log-determinant that of its Jacobian, by autograd: so each
    sample has the log q of the law it is drawn from: the base's at z, less the sum of log|det|.

    Args:
        flow: the model.
        density: of the data.
        z: base points, (n, d).
        steps: how many, at least 1.
        method: a name of `METHODS`.
        batch_size: rows at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> z = run.flow.sample_base(200, torch.Generator().manual_seed(0))
    >>> found = few_steps(run.flow, run.density, z, steps=2, method="midpoint")
    >>> found.evaluations, found.folded, found.metrics["kl_reverse"] > 0
    (4, 0.0, True)
    """
    one = FixedStep(name=method, step_size=1.0)  # type: ignore[arg-type] # the section checks it
    times = torch.linspace(0, 1, steps + 1).tolist()

    def weighed(z: Tensor) -> Tensor:
        log_q = flow.base.log_prob(z)
        folded = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        state = z
        for start, end in pairwise(times):
            before = state.detach().requires_grad_()
            with torch.enable_grad():
                after = flow.cnf.solve(before, start, end, solver=one).end
                rows = [
                    torch.autograd.grad(column.sum(), before, retain_graph=True)[0]
                    for column in after.unbind(-1)
                ]
            sign, log_det = torch.stack(rows, 1).slogdet()
            log_q, folded = log_q - log_det, folded | (sign < 0)
            state = after.detach()
        x, log_det = flow.standardize(state)
        log_w = density.log_prob(x.cpu().double()) - (log_q - log_det).cpu().double()
        return torch.stack([log_w, folded.cpu().double()], 1)

    log_w, folded = in_batches(weighed, z, batch_size).unbind(1)
    return FewSteps(
        steps=steps,
        evaluations=len(METHODS[method][0]) * steps,
        folded=float(folded.mean()),
        metrics=weights_of(log_w),
    )


@torch.no_grad()
def straightness(flow: ContinuousFlow, z: Tensor, *, moments: int = 65) -> float:
    """Return E int |z_1 - z_0 - dz/dt|² dt in whitened coordinates (arXiv 2209.03003, eq. 7).

    It is 0 where every path is straight and of constant speed: then one Euler step is exact.

    Args:
        flow: the model.
        z: base points, (n, d).
        moments: at which the velocity is compared, evenly spaced.

    >>> from flowtrain import load
    >>> flow = load(ffjord_folder)
    >>> 0 < straightness(flow, flow.sample_base(50, torch.Generator().manual_seed(0))) < 10
    True
    """
    times = torch.linspace(0, 1, moments).to(z)
    path = flow.cnf.path(z, times)
    chord = path[-1] - path[0]
    gaps = torch.stack(
        [
            (chord - flow.velocity(t, at)).square().sum(-1).mean()
            for t, at in zip(times, path, strict=True)
        ]
    )
    return float(torch.trapezoid(gaps, times))
