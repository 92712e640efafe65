"""The posterior of logistic regression, against torch's own laws and a chain of NUTS."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from flowtrain.config.data import LogisticRegression as Section
from flowtrain.densities.logistic_regression import LogisticRegression

CHAIN = Path(__file__).parents[2] / "benchmarks" / "posterior_chain.json"


@pytest.fixture(scope="module")
def posterior() -> LogisticRegression:
    return LogisticRegression(prior_std=1.0)


def test_log_prob_is_that_of_torch_s_bernoulli_and_normal(posterior: LogisticRegression) -> None:
    rows, y = load_breast_cancer(return_X_y=True)
    rows = torch.from_numpy((rows - rows.mean(0)) / rows.std(0))
    w = posterior.sample(20, torch.Generator().manual_seed(0))
    logits = w[:, :30] @ rows.T + w[:, 30:]
    fits = torch.distributions.Bernoulli(logits=logits).log_prob(torch.from_numpy(y).double())
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(w)
    expected = fits.sum(1) + prior.sum(1) - posterior.log_normalizer
    torch.testing.assert_close(posterior.log_prob(w), expected, rtol=1e-10, atol=1e-10)
    single = posterior.log_prob(w.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-3)


def test_a_wider_prior_is_that_of_its_deviation() -> None:
    wide, w = LogisticRegression(prior_std=2.0), torch.zeros(1, 31).double()
    expected = 569 * math.log(0.5) - 31 * math.log(2 * math.sqrt(2 * math.pi))
    assert float(wide.log_prob(w)) == pytest.approx(expected - wide.log_normalizer)


def test_the_gradient_is_right(posterior: LogisticRegression) -> None:
    w = posterior.sample(3, torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(posterior.log_prob, w)


def test_samples_have_the_moments_of_a_chain(posterior: LogisticRegression) -> None:
    """Means within 0.05 deviations, which is 5 errors of both, and deviations within 4 %."""
    chain = json.loads(CHAIN.read_text(encoding="utf-8"))
    assert chain["largest_r_hat"] < 1.001
    assert chain["divergences"] == 0
    moments = posterior.draws.moments()
    off = (moments.mean.numpy() - chain["mean"]) / chain["std"]
    assert np.abs(off).max() < 0.05
    deviation = torch.linalg.vector_norm(moments.root, dim=1).numpy()
    assert np.abs(deviation / chain["std"] - 1).max() < 0.04
    x = posterior.sample(10_000, torch.Generator().manual_seed(0)).numpy()
    assert np.abs((x.mean(0) - chain["mean"]) / chain["std"]).max() < 0.06
    assert np.abs(x.std(0) / chain["std"] - 1).max() < 0.05


def test_log_z_and_entropy_belong_together(posterior: LogisticRegression) -> None:
    """-E log p over the posterior is its entropy; Laplace's estimate of log Z is near the true."""
    surprise = -posterior.log_prob(posterior.sample(10_000, torch.Generator().manual_seed(1)))
    error = float(surprise.std()) / 100
    assert float(surprise.mean()) == pytest.approx(posterior.entropy, abs=5 * error)
    plain = -posterior.draws.shares @ posterior.log_prob(posterior.draws.points)
    assert posterior.entropy == pytest.approx(float(plain), abs=0.03)  # three errors of the plain
    near = posterior.approximation
    peak = float(posterior.log_prob(near.mean[None])) + posterior.log_normalizer
    laplace = peak + 31 / 2 * math.log(2 * math.pi) + float(near.root.logdet())
    assert posterior.log_normalizer == pytest.approx(laplace, abs=1.0)
    assert posterior.log_normalizer_error < 0.003


def test_the_config_refuses_what_the_draws_cannot_follow() -> None:
    section = Section(name="logistic_regression", prior_std=100.0)
    with pytest.raises(ValueError, match="importance sampling cannot follow this law"):
        section.build()
