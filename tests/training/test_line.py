"""Runs on points of a single coordinate: what is learned, what is reported, what is refused."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from flowtrain.config.model import Couplings, Model, Peer
from flowtrain.config.schema import Config
from flowtrain.config.section import names, options
from flowtrain.densities.mixtures import GaussianMixture
from flowtrain.errors import ConfigError
from flowtrain.evaluation.pictures import names_of
from flowtrain.evaluation.quadrature import quadrature
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.runs.load import open_run
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]

TWO = ("data.means=[[-2],[2]]", "data.covariances=[[[0.25]],[[1]]]", "data.weights=[1,3]")
NORMAL = ("data.means=[[3]]", "data.covariances=[[[4]]]", "data.weights=[1]")
ON_A_LINE = [
    name
    for section in options(Model)
    for name in names(section)
    if not issubclass(section, Couplings | Peer)
]


def mixture() -> GaussianMixture:
    return GaussianMixture(
        means=[[-2.0], [2.0]], covariances=[[[0.25]], [[1.0]]], weights=[1.0, 3.0]
    )


def test_a_mixture_on_a_line_is_that_of_torch() -> None:
    density, x = mixture(), torch.linspace(-6, 6, 101, dtype=torch.float64)[:, None]
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    means, stds = torch.tensor([[-2.0, 2.0], [0.5, 1.0]], dtype=torch.float64)
    theirs = MixtureSameFamily(Categorical(weights), Normal(means, stds))
    expected = theirs.log_prob(x[:, 0])
    torch.testing.assert_close(density.log_prob(x), expected, rtol=0, atol=1e-12)
    nodes, weights = density.quadrature(200)
    assert nodes.shape == (200, 1)
    p = density.log_prob(nodes).exp()
    assert float(weights @ p) == pytest.approx(1, abs=1e-7)
    assert float(-weights @ torch.xlogy(p, p)) == pytest.approx(density.entropy, abs=1e-6)
    samples = density.sample(50_000, torch.Generator().manual_seed(0))
    assert samples.shape == (50_000, 1)
    assert samples.mean().item() == pytest.approx(1.0, abs=0.03)
    assert samples.var().item() == pytest.approx(0.25 * 0.25 + 0.75 + 3.0, abs=0.08)


def test_kl_on_a_line_is_the_known_one_of_two_normals() -> None:
    p = GaussianMixture(means=[[0.0]], covariances=[[[1.0]]], weights=[1.0])
    flow = Flow([], Standardize(torch.tensor([1.0]), torch.tensor([2.0])).double())
    found = quadrature(flow, p, points=400, batch_size=1000)
    assert found["kl"] == pytest.approx(math.log(2) + 2 / 8 - 1 / 2, abs=2e-5)  # TAIL is left out
    assert found["mass"] == pytest.approx(0.9938 - 0.0002, abs=1e-3)  # of N(1, 4) within 6


def test_the_affine_flow_learns_x_2z_plus_3(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(
        *NORMAL, "splits.train=20000", "trainer.max_steps=2", "optimizer.lr=1e-4", model="affine"
    )
    train(config, tmp_path / "run")
    flow = open_run(tmp_path / "run").flow
    zero, one = flow.to_data(torch.tensor([[0.0], [1.0]])).flatten().tolist()
    assert zero == pytest.approx(3.0, abs=0.05)
    assert one - zero == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("model", ON_A_LINE)
def test_every_model_but_couplings_learns_a_line(tiny: Tiny, tmp_path: Path, model: str) -> None:
    changes = ("trainer.max_steps=2", "trainer.evaluate_every=1", "evaluation.grid=64")
    result = train(tiny(*TWO, *changes, model=model), tmp_path / "run")
    assert result.metrics["kl/test"] == pytest.approx(result.metrics["kl_paired/test"], abs=0.4)
    assert 0.9 < result.metrics["mass/test"] < 1 + 1e-3
    run = open_run(tmp_path / "run")
    expected = ["density", "paths", "marginals"] if model == "ffjord" else ["density", "marginals"]
    assert names_of(run.flow, run.splits.val) == expected


@pytest.mark.parametrize(
    "section", Couplings.__subclasses__(), ids=lambda section: section.__name__
)
def test_couplings_refuse_a_line_in_one_line(
    tiny: Tiny, tmp_path: Path, section: type[Couplings]
) -> None:
    (model,) = names(section)
    with pytest.raises(ConfigError, match=r"at least 2 dimensions, this has 1; use model=maf_spl"):
        train(tiny(*TWO, model=model), tmp_path / "run")


def test_figures_of_a_line_are_drawn(tiny: Tiny, tmp_path: Path) -> None:
    changes = ("trainer.max_steps=1", "trainer.evaluate_every=1", "trainer.figures=true")
    train(tiny(*TWO, *changes, model="ffjord"), tmp_path / "run")
    drawn = {path.name for path in (tmp_path / "run" / "figures").glob("*-final.png")}
    assert drawn == {"density-final.png", "paths-final.png", "curves-final.png"}


def test_a_line_is_not_turned(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="condition=rotation needs points in a plane"):
        tiny(*TWO, "data.condition=rotation", "data.interval=[0,1]", model="affine")


def test_its_components_can_be_given(tiny: Tiny, tmp_path: Path) -> None:
    changes = ("data.condition=component", "trainer.max_steps=1", "trainer.evaluate_every=1")
    result = train(tiny(*TWO, *changes, model="affine"), tmp_path / "run")
    assert "kl/test" in result.metrics
