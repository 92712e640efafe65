"""Flow matching: paths from base to data, their times and targets, and the loss on them."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtrain.config.objective import LARGEST_REFERENCE
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow
from flowtrain.training.objectives import Scalars

SHORTEST = 3e-2  # 1 - t at which the likelihood's weight of times is cut off


@dataclass(frozen=True)
class FlowMatching:
    r"""Regression of a continuous flow's velocity on given paths, arXiv 2210.02747: solves no ODE.

    loss = E |f(t, z_t) - u|^2 in whitened coordinates, where z_t = a_t x + b_t z goes from a base
    point z to a data point x. The target u is the path's own dz_t/dt = a' x + b' z, or its mean
    given z_t: the minimum is the same, E[dz_t/dt | z_t], and the noise of the gradient less.

    **The posterior mean.** Were the data the points r_1..r_n alone, then z = (z_t - a r_j) / b
    would have to be drawn for z_t to come from r_j, so that
    p(r_j | z_t) = softmax_j(-|z_t - a r_j|^2 / 2 b^2), and with r their mean by these weights
    E[dz_t/dt | z_t] = a' r + b' (z_t - a r) / b; on linear paths (r - z_t) / (1 - t). That is the
    exact velocity of the empirical law of the r_j. They are points of the batch, x among them:
    any of them is as likely as x to be the one that z_t was made from, so by the tower property
    the mean of u over batches is that of the pairs' targets. It is unbiased at any n.

    **Conditions.** Of p(x | c) the velocity wanted is E[dz_t/dt | z_t, c]. The points that z_t may
    come from are those of the batch with the very same c, and the argument above holds among them;
    a mean over all would be the velocity of p(x). Where no two conditions are the same, as those
    on the real line, it is the pair's own target. Likewise a coupling pairs base and data points
    of one condition only: over the whole batch it would give the classes different base laws, each
    the part of the normal law nearest to it, which no sampler draws from.

    **Times by likelihood.** An error e of the velocity is an error e a / (b (a' b - a b')) of the
    score, as both come from E[z | z_t]. The stochastic sampler with the same marginals and noise
    g^2 then has a drift error e + g^2 / 2 of that, and by Girsanov's theorem KL <= int E |drift
    error|^2 / 2 g^2 dt. The best g makes it KL <= int w(t) E|e|^2 dt with
    w = a / (b (a' b - a b')), on linear paths t / (1 - t). Times drawn with density ~ w make the
    loss this bound. In s = 1 - t it is (1 - s) / s on linear paths; s is cut off at `SHORTEST`,
    where int w diverges.

    Args:
        coupling: which z belongs to which x: "independent", or "optimal_transport", the pairing
            of the batch with the least total square distance (arXiv 2302.00482).
        path: "linear", a = t, b = 1 - t; or "variance_preserving", a = sin(pi t / 2),
            b = cos(pi t / 2), whose flow is a diffusion model's probability-flow ODE.
        times: of the batch: "uniform" draws, "stratified" ones, one in each of n equal slices,
            "logit_normal" draws, which prefer the middle (arXiv 2403.03206), or "likelihood".
        targets: "sample", the path's own velocity, or "posterior_mean".
        reference: n, the points of the batch that a posterior mean is over: the batch is taken in
            parts of so many, and its cost grows as n per point; None is `LARGEST_REFERENCE`.

    >>> from flowtrain import load
    >>> flow, generator = load(ffjord_folder), torch.Generator().manual_seed(0)
    >>> objective = FlowMatching(coupling="optimal_transport", path="linear", times="stratified")
    >>> loss, _ = objective(flow, flow.sample(8), generator)
    >>> loss.shape, loss.item() > 0
    (torch.Size([]), True)
    """

    coupling: str
    path: str
    times: str
    targets: str = "sample"
    reference: int | None = None

    def __call__(
        self, flow: Flow, x: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> tuple[Tensor, Scalars]:
        loss = self.loss(flow, x, *self.draw(flow, x, generator, context), context)
        return loss, self.scalars(loss)

    def draw(
        self, flow: Flow, x: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return all that is random of a batch: the base points, (n, d), and the times, (n,)."""
        data, _ = flow.standardize.inverse(x)
        kind: dict[str, Any] = {"generator": generator, "dtype": data.dtype, "device": x.device}
        base = torch.randn(x.shape, **kind)
        if self.coupling == "optimal_transport":
            base = base[_assignment(data, base, _groups(context))]
        return base, self.draw_times(len(x), kind)

    def loss(
        self, flow: Flow, x: Tensor, base: Tensor, t: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Return the loss, (), of a batch and what was drawn for it."""
        assert isinstance(flow, ContinuousFlow)
        data, _ = flow.standardize.inverse(x)
        a, b, da, db = (each[:, None] for each in self.coefficients(t))
        target = da * data + db * base
        if self.targets == "posterior_mean":
            # By how much the mean differs from x: no difference of large numbers where b is small.
            n, groups = self.reference or LARGEST_REFERENCE, _groups(context)
            parts = [each.split(n) for each in (data, base, a / b)]
            same = [None] * len(parts[0]) if groups is None else groups.split(n)
            means = [_posterior_mean(*part) for part in zip(*parts, same, strict=True)]
            drawn = torch.cat(means) - data
            target = target + (da - a * db / b) * drawn
        residual = flow.velocity(t, a * data + b * base, context) - target
        return residual.square().sum(-1).mean()

    def scalars(self, loss: Tensor) -> Scalars:
        """Return what is worth a curve beside the loss: nothing."""
        return dict

    def draw_times(self, n: int, kind: dict[str, Any]) -> Tensor:
        """Draw n times in (0, 1), with a generator, dtype and device."""
        if self.times == "logit_normal":
            return torch.sigmoid(torch.randn(n, **kind))
        uniform = torch.rand(n, **kind)
        if self.times == "uniform":
            return uniform
        slices = torch.arange(n, dtype=kind["dtype"], device=kind["device"])
        uniform = (slices + uniform) / n  # rows are in random order already
        return self.likelihood_times(uniform) if self.times == "likelihood" else uniform

    def likelihood_times(self, share: Tensor) -> Tensor:
        """Return the times before which these shares of the likelihood's weight lie, each (n,)."""
        log_s, before = _likelihood_shares(self, share.dtype, share.device)
        right = torch.searchsorted(before, share).clamp(1, len(log_s) - 1)
        low, high = before[right - 1], before[right]
        inside = (share - low) / (high - low)
        return 1 - torch.lerp(log_s[right - 1], log_s[right], inside).exp()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a, b of the path z_t = a x + b z and their derivatives, each like t."""
        if self.path == "linear":
            return t, 1 - t, torch.ones_like(t), -torch.ones_like(t)
        quarter = math.pi / 2
        a, b = torch.sin(quarter * t), torch.cos(quarter * t)
        return a, b, quarter * b, -quarter * a


@lru_cache
def _likelihood_shares(
    matching: FlowMatching, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return log s on a grid, and which share of the likelihood's weight lies before 1 - s."""
    s = torch.logspace(0, math.log10(SHORTEST), 1025, dtype=torch.float64, device=device)
    a, b, da, db = matching.coefficients(1 - s)
    weight = a / (b * (da * b - a * db)) * s  # of log s, in which it is smooth
    before = torch.cat([weight.new_zeros(1), (weight[1:] + weight[:-1]).cumsum(0)])
    return s.log().to(dtype), before.to(dtype) / before[-1]


def _groups(context: Tensor | None) -> Tensor | None:
    """Return which rows have the very same condition, as a number for each, (n,)."""
    return None if context is None else context.unique(dim=0, return_inverse=True)[1]


def _posterior_mean(data: Tensor, base: Tensor, ratio: Tensor, groups: Tensor | None) -> Tensor:
    """Return the mean of the data points given each a x + b z, (n, d), for a / b of (n, 1).

    |z_t - a r|^2 / 2 b^2 = |a / b (x - r) + z|^2 / 2, of which a softmax needs what depends on r.
    Only points of its own group count, (n,); None is a single group.
    """
    scaled = ratio * data + base
    logits = ratio * (scaled @ data.T) - 0.5 * ratio.square() * data.square().sum(-1)
    if groups is not None:
        logits = logits.masked_fill(groups[:, None] != groups, -torch.inf)
    return logits.softmax(-1) @ data


def _assignment(data: Tensor, base: Tensor, groups: Tensor | None) -> Tensor:
    """Return the base point that belongs to each data point, (n,), on the device of both.

    Rows of a group, (n,), are paired with one another; None is a single group.
    """
    from scipy.optimize import linear_sum_assignment  # 0.2 s that other objectives need not wait

    cost = torch.cdist(data, base).square().cpu().numpy()
    if groups is None:
        return torch.from_numpy(linear_sum_assignment(cost)[1]).to(data.device)
    numbers, paired = groups.cpu().numpy(), np.empty(len(data), dtype=np.int64)
    for number in np.unique(numbers):
        (rows,) = np.nonzero(numbers == number)
        paired[rows] = rows[linear_sum_assignment(cost[rows[:, None], rows])[1]]
    return torch.from_numpy(paired).to(data.device)
