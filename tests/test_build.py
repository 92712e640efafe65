"""From a config to what it names."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from flowtrain import build
from flowtrain.build import build_density, build_flow, build_solver, pick_device
from flowtrain.config import Config, validate
from flowtrain.errors import ConfigError
from flowtrain.flows import ContinuousFlow, Flow
from flowtrain.flows.ode import Solver

Tiny = Callable[..., Config]
ZEROS, ONES = torch.zeros(2), torch.ones(2)


def test_weights_hang_on_the_seed_alone(tiny: Tiny) -> None:
    def drawn(seed: int, around: int) -> torch.Tensor:
        torch.manual_seed(around)
        return next(build_flow(tiny(), ZEROS, ONES, seed=seed).parameters())

    assert torch.equal(drawn(0, around=1), drawn(0, around=2))
    assert not torch.equal(drawn(0, around=1), drawn(1, around=1))


def test_building_leaves_the_global_generator_alone(tiny: Tiny) -> None:
    before = torch.get_rng_state()
    build_flow(tiny("model.mixing=random"), ZEROS, ONES, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_a_new_flow_is_the_standardised_normal(tiny: Tiny, model: str) -> None:
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    flow = build_flow(tiny("dtype=float64", model=model), mean, std, seed=0).eval()
    x = torch.randn(20, 2, dtype=torch.float64)
    normal = torch.distributions.Normal(mean.double(), std.double())
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x).sum(-1))


def test_the_state_of_another_seed_gives_the_same_flow(tiny: Tiny) -> None:
    config = tiny("model.mixing=random", "model.couplings=6")
    first, second = (build_flow(config, ZEROS + i, ONES + i, seed=i) for i in range(2))
    randomized = {k: v + torch.rand_like(v) / 10 for k, v in first.named_parameters()}
    first.load_state_dict(randomized, strict=False)
    second.load_state_dict(first.state_dict())
    x = torch.randn(20, 2)
    assert torch.equal(first.log_prob(x), second.log_prob(x))


@pytest.mark.parametrize("setting", ["model.probes=2", "model.noise=gaussian"])
@pytest.mark.parametrize("divergence", ["exact", "auto"])
def test_probes_are_refused_where_the_trace_is_exact(
    tiny: Tiny, setting: str, divergence: str
) -> None:
    config = tiny(setting, f"model.divergence={divergence}", model="ffjord")
    with pytest.raises(ConfigError, match=r"set model\.divergence=hutchinson"):
        build_flow(config, ZEROS, ONES, seed=0)
    estimated = tiny(setting, "model.divergence=hutchinson", model="ffjord")
    assert isinstance(build_flow(estimated, ZEROS, ONES, seed=0), ContinuousFlow)


def test_a_coupling_flow_needs_two_dimensions(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="needs data of at least 2 dimensions, this has 1"):
        build_flow(tiny(), ZEROS[:1], ONES[:1], seed=0)


def test_any_dimension_builds(tiny: Tiny) -> None:
    flows: list[Flow] = [
        build_flow(tiny(), torch.zeros(5), torch.ones(5), seed=0),
        build_flow(tiny(model="ffjord"), torch.zeros(1), torch.ones(1), seed=0),
    ]
    assert [flow.sample(3).shape for flow in flows] == [(3, 5), (3, 1)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"covariances": [[[1.0, 2.0], [2.0, 1.0]]]}, "covariances"),
        ({"means": [[0.0, 0.0, 0.0]]}, "means must have shape"),
    ],
)
def test_a_law_that_cannot_be_is_refused(tiny: Tiny, data: dict[str, Any], message: str) -> None:
    raw = tiny().model_dump()
    raw["data"] |= {
        "means": [[0.0, 0.0]], "covariances": [[[1.0, 0.0], [0.0, 1.0]]], "weights": [1.0],
    } | data  # fmt: skip
    with pytest.raises(ConfigError, match=f"data: .*{message}"):
        build_density(validate(raw))


def test_a_law_whose_entropy_is_out_of_reach_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="data: the entropy of a law with details of size"):
        build_density(tiny("data=eight_gaussians", "data.radius=1e6"))


def test_a_solver_takes_every_setting_of_its_config(tiny: Tiny) -> None:
    config = tiny(
        "solver=dopri5", "solver.rtol=1e-4", "solver.atol=1e-5", "solver.max_steps=77",
        "solver.dtype=float64", "solver.adjoint=true", "solver.adjoint_rtol=0.5",
        "solver.adjoint_seminorm=false", model="ffjord",
    )  # fmt: skip
    assert build_solver(config.solver) == Solver(
        "dopri5", rtol=1e-4, atol=1e-5, max_steps=77, dtype=torch.float64, adjoint=True,
        adjoint_rtol=0.5, adjoint_seminorm=False,
    )  # fmt: skip


# --- devices ------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Return a function that gives this machine so many GPUs, and perhaps Apple's."""

    def machine(gpus: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (2, False, "auto", "cuda:0"),
        (0, True, "auto", "mps"),
        (1, False, "cpu", "cpu"),
        (1, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_the_device_is_the_one_asked_for(
    machine: Callable[[int, bool], None], gpus: int, mps: bool, name: str, expected: str
) -> None:
    machine(gpus, mps)
    assert pick_device(name, "float32") == torch.device(expected)


@pytest.mark.parametrize(
    ("gpus", "name", "here"),
    [(0, "cuda", "cpu"), (1, "cuda:1", "cpu, cuda:0"), (0, "mps", "cpu")],
)
def test_a_device_that_is_not_there_is_refused(
    machine: Callable[[int, bool], None], gpus: int, name: str, here: str
) -> None:
    machine(gpus, False)
    with pytest.raises(ConfigError) as caught:
        pick_device(name, "float32")
    assert str(caught.value) == f"trainer.device: {name} is not on this machine; it has {here}"


def test_mps_has_no_float64(machine: Callable[[int, bool], None]) -> None:
    machine(0, True)
    with pytest.raises(ConfigError, match="mps has no float64"):
        pick_device("mps", "float64")


def test_every_optimizer_is_built_with_its_settings(tiny: Tiny) -> None:
    weights = [torch.nn.Parameter(torch.ones(3))]
    for name in build.OPTIMIZERS:
        config = tiny(f"optimizer={name}", "optimizer.lr=0.125", "optimizer.betas=[0.5,0.75]")
        (group,) = build.build_optimizer(config, weights).param_groups
        assert (group["lr"], list(group["betas"])) == (0.125, [0.5, 0.75])
        assert group["weight_decay"] == config.optimizer.arguments().get("weight_decay", 0)
