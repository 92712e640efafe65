"""A real posterior: the weights of Bayesian logistic regression on a small medical table."""

import math
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from flowtrain.batching import by_rows
from flowtrain.densities.density import REACH, Density, require_positive
from flowtrain.densities.importance import Gaussian, Weighted, importance_sample, laplace


class LogisticRegression(Density):
    """The posterior of logistic regression on scikit-learn's breast_cancer, 31 weights.

    p(w | y) = N(w; 0, prior_std² I) Π_i s(y_i wᵀa_i) / Z, s the logistic function, y_i = 1 for
    benign and -1 for malignant, a_i the 30 standardised columns of row i and a 1 for the
    intercept, the last weight. Z is the evidence, p(y).

    The law is known up to Z alone, and no formula samples it. What judges a flow, log Z, samples
    and entropy, comes from 131,072 weighted draws, which start at Laplace's approximation and
    adapt: `log_normalizer_error` is some 0.002 nats, and every KL is off by as much. Laplace's
    approximation is where a flow begins, too: it trains on nothing that the draws have found.

    Args:
        prior_std: standard deviation of every weight beforehand.

    Raises:
        ValueError: it is not positive, or so large that the draws lose the law.

    >>> posterior = LogisticRegression(prior_std=1.0)
    >>> posterior.sample(5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 31])
    >>> round(posterior.log_normalizer, 1), posterior.log_normalizer_error < 0.005
    (-55.2, True)
    """

    dim = 31
    log_normalizer: float
    approximation: Gaussian

    def __init__(self, *, prior_std: float) -> None:
        require_positive(prior_std=prior_std)
        self.prior_std = prior_std
        self.signed = _signed_rows()
        self.approximation, self.draws = _explored(prior_std)
        self.log_normalizer = self.draws.log_normalizer
        self.log_normalizer_error = self.draws.log_normalizer_error
        spread = self.draws.moments()
        reach = REACH * torch.linalg.vector_norm(spread.root, dim=1)
        super().__init__(
            window=(spread.mean - reach, spread.mean + reach), resolution=float(reach.min()) / REACH
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.draws.resample(n, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return _log_joint(x, self.signed, self.prior_std) - self.log_normalizer

    @cached_property
    def entropy(self) -> float:
        """Entropy in nats, to about the error of log Z.

        E (w - m) . grad log p = -d for any m (Stein's identity): half of (w - m) . grad log p + d
        may be taken off log p, and its mean stays. Of a Gaussian a constant is left; of a law near
        one, little that chance moves.
        """
        center = self.draws.moments().mean

        def held(w: Tensor) -> Tensor:
            fits, apart = w @ self.signed.T, w - center
            rise = (torch.sigmoid(-fits) * (fits - center @ self.signed.T)).sum(1)
            stein = rise - (apart * w).sum(1) / self.prior_std**2 + self.dim
            return _log_joint(w, self.signed, self.prior_std) - stein / 2

        values = by_rows(held, self.draws.points, width=512)
        return self.log_normalizer - float(self.draws.shares @ values)


def _log_joint(w: Tensor, signed: Tensor, prior_std: float) -> Tensor:
    """Return log p(y, w) in nats, (n, 31) -> (n,), by the rows y_i a_i, (m, 31)."""
    fits = torch.nn.functional.logsigmoid(w @ signed.to(w).T).sum(1)
    z = w / prior_std
    constant = w.shape[1] * (math.log(2 * math.pi) / 2 + math.log(prior_std))
    log_p: Tensor = fits - z.square().sum(1) / 2 - constant
    return log_p


@lru_cache(maxsize=1)
def _signed_rows() -> Tensor:
    """Return the standardised rows and a 1, each times its y of 1 or -1, (569, 31)."""
    from sklearn.datasets import load_breast_cancer

    x, benign = load_breast_cancer(return_X_y=True)
    rows = np.column_stack([(x - x.mean(0)) / x.std(0), np.ones(len(x))])
    return torch.from_numpy(rows * (2.0 * benign - 1)[:, None])


@lru_cache(maxsize=2)  # a run builds its density twice
def _explored(prior_std: float) -> tuple[Gaussian, Weighted]:
    """Return Laplace's approximation of the posterior, and weighted draws of it."""

    def log_joint(w: Tensor) -> Tensor:
        return _log_joint(w, _signed_rows(), prior_std)

    start = laplace(log_joint, LogisticRegression.dim)
    return start, importance_sample(log_joint, start, torch.Generator().manual_seed(0))
