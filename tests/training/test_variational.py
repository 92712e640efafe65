"""Variational inference from the command's own settings: it comes to what is best in its family."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrain.config.schema import validate
from flowtrain.training.trainer import train

Compose = Callable[..., dict[str, Any]]
FULL_RANK = -55.4651  # ELBO of the best Gaussian, by benchmarks/posterior.py


def metrics(compose: Compose, folder: Path, *overrides: str) -> dict[str, float]:
    few = ("splits.train=2_000", "splits.val=500", "splits.test=500", "trainer.figures=false")
    config = validate(compose("objective=reverse_kl", "logger=none", *few, *overrides))
    return train(config, folder).metrics


def test_affine_learns_the_best_gaussian_of_a_posterior(compose: Compose, tmp_path: Path) -> None:
    found = metrics(
        compose, tmp_path, "model=affine", "data=logistic_regression", "trainer.max_steps=400",
        "trainer.evaluate_every=400",
    )  # fmt: skip
    assert found["elbo/test"] == pytest.approx(FULL_RANK, abs=0.04)
    assert abs(found["log_z/test"] + 55.2257) < 4 * found["log_z_error/test"] < 0.05
    assert found["elbo/test"] + found["kl_reverse/test"] == pytest.approx(-55.2257, abs=1e-3)
    assert found["log_normalizer_error/test"] < 0.003


def test_a_wave_is_learned_from_end_to_end(compose: Compose, tmp_path: Path) -> None:
    """A flow that lost a half of it would have a KL of log 2."""
    found = metrics(
        compose, tmp_path, "model=spline", "data=u2", "model.couplings=4", "model.hidden=16",
        "model.bins=8", "trainer.batch_size=256", "trainer.max_steps=600", "scheduler=cosine",
        "trainer.evaluate_every=600", "evaluation.grid=64",
    )  # fmt: skip
    assert found["kl_reverse/test"] < 0.1
    assert found["kl/test"] < 0.1
    assert found["ess/test"] > 0.8
