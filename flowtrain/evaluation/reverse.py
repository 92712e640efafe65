"""KL(model | data), and what else the weights p / q of the model's own samples tell."""

import math

import torch
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.data.splits import Split
from flowtrain.densities.conditional import Conditional
from flowtrain.densities.density import Density
from flowtrain.flows.flow import Flow

SAMPLES = 10_000  # of the model, for KL(model | data)
SAMPLES_OF_PARTS = 2_000  # for the part of each component, which takes a solve of its own


@torch.no_grad()
def reverse(flow: Flow, density: Density | Conditional, *, batch_size: int) -> dict[str, float]:
    """Return KL(q|p) in nats by samples of q, and how far their weights p / q are from equal.

    `ess` is (sum w)² / n sum w², the effective sample size as a fraction: 1 where q = p; samples
    that p does not explain, and parts of p that q misses and a sample falls on, lower it. KL is
    left out where p is zero at a sample, as it is infinite, and where p is known up to a constant
    alone. Of an energy there are the ELBO and log Z by these weights, too. Chance comes from
    seed 0.

    Args:
        flow: the model, q.
        density: p; of p(x | c) the conditions are drawn from their own law.
        batch_size: rows at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> found = reverse(run.flow, run.density, batch_size=1024)
    >>> found["kl_reverse"] > 0, 0 < found["ess"] < 1
    (True, True)
    """
    generator = torch.Generator().manual_seed(0)
    z, context = flow.sample_base(SAMPLES, generator).to(flow.points_dtype), None
    if isinstance(density, Conditional):
        context = density.sample(SAMPLES, generator)[1].to(flow.device, flow.dtype)

    def log_weight(z: Tensor, context: Tensor | None = None) -> Tensor:
        x, log_det = flow(z, context)
        log_q = (flow.base.log_prob(z) - log_det).cpu().double()
        log_w: Tensor = Split(x, density, context=context).log_p - log_q
        return log_w

    log_w = in_batches(log_weight, z, batch_size, context)
    found = weights_of(log_w)
    if isinstance(density, Density) and density.log_normalizer is not None:
        found |= evidence(log_w + density.log_normalizer)
        if not density.normalized:
            found = {name: v for name, v in found.items() if not name.startswith("kl_reverse")}
        if density.log_normalizer_error:
            found["log_normalizer_error"] = density.log_normalizer_error
    return found


@torch.no_grad()
def components(flow: Flow, density: Density, *, batch_size: int) -> dict[str, float]:
    """Return whether a flow dropped a component of a mixture: `least_component`, 1 if none.

    A sample belongs to component k of p = sum_k w_k p_k by the part w_k p_k / p. The mean of that
    over samples of q, divided by w_k, is the part of the component's mass that q has; the least
    one is returned, and nothing for a density that is no mixture. Chance comes from seed 0.

    Args:
        flow: the model, q.
        density: p.
        batch_size: rows at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> components(run.flow, run.density, batch_size=1024)["least_component"] > 0.5
    True
    """
    parts = density.components()
    if len(parts) < 2:
        return {}
    z = flow.sample_base(SAMPLES_OF_PARTS, torch.Generator().manual_seed(0))
    x = in_batches(flow.to_data, z.to(flow.points_dtype), batch_size).cpu().double()
    terms = torch.stack([math.log(weight) + part.log_prob(x) for weight, part in parts])
    shares = terms.softmax(0).nan_to_num(0.0).mean(1)  # nowhere near p is in no component
    weights = torch.tensor([weight for weight, _ in parts], dtype=torch.float64)
    return {"least_component": float((shares / weights).min())}


def weights_of(log_w: Tensor) -> dict[str, float]:
    """Return KL(q|p) in nats, its standard error and ESS, from log p - log q at samples of q, (n,).

    >>> weights_of(torch.zeros(100))
    {'ess': 1.0, 'kl_reverse': -0.0, 'kl_reverse_error': 0.0}
    """
    weights = (log_w - log_w.max()).exp().nan_to_num(0.0)  # all may be zero
    ess = weights.sum().square() / (len(log_w) * weights.square().sum()).clamp(min=1)
    found = {"ess": float(ess)}
    if log_w.isfinite().all():
        found |= {"kl_reverse": -float(log_w.mean()), "kl_reverse_error": standard_error(log_w)}
    return found


def evidence(log_w: Tensor) -> dict[str, float]:
    """Return what is known of log Z in nats from log Z p - log q at samples of q, (n,).

    `elbo` is the mean, a lower bound; `log_z` the log of the mean weight. The errors of both are
    standard errors: they say nothing of a part of p that no sample of q falls on.

    >>> evidence(torch.full((100,), 2.0))
    {'log_z': 2.0, 'log_z_error': 0.0, 'elbo': 2.0, 'elbo_error': 0.0}
    """
    log_z = log_w.logsumexp(0) - math.log(len(log_w))
    found = {"log_z": float(log_z), "log_z_error": standard_error((log_w - log_z).exp())}
    if log_w.isfinite().all():
        found |= {"elbo": float(log_w.mean()), "elbo_error": standard_error(log_w)}
    return found


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values, (n,); NaN of a single one.

    >>> standard_error(torch.tensor([1.0, 3.0]))
    1.0
    """
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else math.nan
