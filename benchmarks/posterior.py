"""Print how near Gaussians and flows are to the posterior `data=logistic_regression`.

    for seed in 0 1 2; do flowtrain model=spline data=logistic_regression objective=reverse_kl \
        seed=$seed hydra.run.dir=outputs/posterior/spline-$seed ...; done
    python benchmarks/posterior.py outputs/posterior/*

The Gaussians are the best there are, without noise: under N(m, L Lᵀ) a row's logit is normal, so
that the ELBO is a sum of integrals on a line, by Gauss and Hermite's rule, and BFGS climbs it.
Means and deviations are compared with those of benchmarks/posterior_chain.json, in the chain's
deviations: the largest difference of the 31 means, and the least and the largest ratio of the
deviations. Samples of a flow are 100,000, ESS and ELBO those of its own report.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from flowtrain import load
from flowtrain.densities.importance import Gaussian
from flowtrain.densities.logistic_regression import LogisticRegression
from flowtrain.evaluation.reverse import evidence, weights_of
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result

CHAIN = Path(__file__).with_name("posterior_chain.json")
NODES, SAMPLES = 40, 100_000
HEAD = ("", "ELBO", "log Z by weights", "ESS", "means off by", "deviations", "seconds")


def elbo(near: Gaussian, posterior: LogisticRegression) -> Tensor:
    """Return E log p(y, w) + entropy under a Gaussian, in nats."""
    nodes, weights = (torch.from_numpy(each) for each in hermegauss(NODES))
    signed, variance = posterior.signed, posterior.prior_std**2
    middle = signed @ near.mean
    spread = torch.linalg.vector_norm(signed @ near.root, dim=1)
    logits = middle[:, None] + spread[:, None] * nodes
    fits = torch.nn.functional.logsigmoid(logits) @ weights / math.sqrt(2 * math.pi)
    dim, log_det = len(near.mean), near.root.diagonal().abs().log().sum()
    squares = near.mean.square().sum() + near.root.square().sum()
    prior = -squares / (2 * variance) - dim / 2 * math.log(2 * math.pi * variance)
    return fits.sum() + prior + dim / 2 * math.log(2 * math.pi * math.e) + log_det


def best(posterior: LogisticRegression, shape: Callable[[Tensor], Tensor]) -> Gaussian:
    """Return the Gaussian of the largest ELBO whose root is of a shape, from Laplace's."""
    start = posterior.approximation
    mean = start.mean.clone().requires_grad_()
    root = start.root.clone(memory_format=torch.contiguous_format).requires_grad_()
    climb = torch.optim.LBFGS(
        [mean, root], max_iter=2_000, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=1e-7, tolerance_change=1e-12,
    )  # fmt: skip

    def closure() -> Tensor:
        climb.zero_grad()
        loss = -elbo(Gaussian(mean, shape(root)), posterior)
        loss.backward()
        return loss

    climb.step(closure)
    return Gaussian(mean.detach(), shape(root).detach())


def of_gaussian(near: Gaussian, posterior: LogisticRegression) -> dict[str, str]:
    """Return the row of a Gaussian."""
    x = near.sample(SAMPLES, torch.Generator().manual_seed(0))
    law = torch.distributions.MultivariateNormal(near.mean, scale_tril=near.root)
    log_w = posterior.log_prob(x) - law.log_prob(x)
    found = {**weights_of(log_w), **evidence(log_w + posterior.log_normalizer)}
    deviation = torch.linalg.vector_norm(near.root, dim=1)
    return row(float(elbo(near, posterior)), found, near.mean, deviation, seconds="")


def of_run(folder: Path) -> dict[str, str]:
    """Return the row of a run."""
    result = read_result(RunFolder(folder))
    found = {tag.partition("/")[0]: v for tag, v in result["metrics"].items() if "/test" in tag}
    x = load(folder).sample(SAMPLES, torch.Generator().manual_seed(0)).double()
    return row(found["elbo"], found, x.mean(0), x.std(0), seconds=f"{result['seconds']:.0f}")


def row(
    bound: float, found: dict[str, float], mean: Tensor, deviation: Tensor, *, seconds: str
) -> dict[str, str]:
    """Return the cells of a row, by the names of the columns."""
    chain = json.loads(CHAIN.read_text(encoding="utf-8"))
    off = np.abs(mean.numpy() - chain["mean"]) / chain["std"]
    ratio = deviation.numpy() / chain["std"]
    cells = (
        f"{bound:.4f}", f"{found['log_z']:.4f} ± {found['log_z_error']:.4f}", f"{found['ess']:.3f}",
        f"{off.max():.3f}", f"{ratio.min():.3f} to {ratio.max():.3f}", seconds,
    )  # fmt: skip
    return dict(zip(HEAD[1:], cells, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="run folders")
    folders = parser.parse_args().runs
    posterior = LogisticRegression(prior_std=1.0)
    rows = {
        "Laplace": of_gaussian(posterior.approximation, posterior),
        "mean-field Gaussian": of_gaussian(
            best(posterior, lambda root: root.diagonal().diag()), posterior
        ),
        "full-rank Gaussian": of_gaussian(best(posterior, torch.tril), posterior),
        **{folder.name: of_run(folder) for folder in folders},
    }
    print(f"log Z {posterior.log_normalizer:.4f} ± {posterior.log_normalizer_error:.4f}\n")
    print(f"| {' | '.join(HEAD)} |\n|---|{'--:|' * (len(HEAD) - 1)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells.values())} |")


if __name__ == "__main__":
    main()
