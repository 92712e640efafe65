"""From a config to what it names."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flowtrain.build import (
    build_data,
    build_density,
    build_flow,
    build_splits,
    derive_seeds,
    fit_whitening,
    pick_device,
)
from flowtrain.config.data import Data
from flowtrain.config.model import Model
from flowtrain.config.optimizer import Optimizer
from flowtrain.config.schema import Config, validate
from flowtrain.config.section import names, options
from flowtrain.config.solver import Adaptive
from flowtrain.data.read import Table
from flowtrain.data.splits import Split
from flowtrain.densities.density import Density
from flowtrain.errors import ConfigError, UserError
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.training.weights import Weights

Tiny = Callable[..., Config]
ZEROS, ONES = torch.zeros(2), torch.ones(2)
OF_A_FILE = ("custom", "table", "unnormalized")  # data that need one of the user's own


def test_weights_hang_on_the_seed_alone(tiny: Tiny) -> None:
    def drawn(seed: int, around: int) -> torch.Tensor:
        torch.manual_seed(around)
        return next(build_flow(tiny(), Standardize(ZEROS, ONES), seed=seed).parameters())

    assert torch.equal(drawn(0, around=1), drawn(0, around=2))
    assert not torch.equal(drawn(0, around=1), drawn(1, around=1))


def test_building_leaves_the_global_generator_alone(tiny: Tiny) -> None:
    before = torch.get_rng_state()
    build_flow(tiny("model.mixing=random"), Standardize(ZEROS, ONES), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_a_new_flow_is_the_standardised_normal(tiny: Tiny, model: str) -> None:
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    flow = build_flow(tiny("dtype=float64", model=model), Standardize(mean, std), seed=0).eval()
    x = torch.randn(20, 2, dtype=torch.float64)
    normal = torch.distributions.Normal(mean.double(), std.double())
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x).sum(-1))


def test_the_state_of_another_seed_gives_the_same_flow(tiny: Tiny) -> None:
    config = tiny("model.mixing=random", "model.couplings=6")
    first, second = (build_flow(config, Standardize(ZEROS + i, ONES + i), seed=i) for i in range(2))
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
    with pytest.raises(ConfigError, match=r"^model: probes and noise .* choose hutchinson$"):
        build_flow(config, Standardize(ZEROS, ONES), seed=0)
    estimated = tiny(setting, "model.divergence=hutchinson", model="ffjord")
    assert isinstance(build_flow(estimated, Standardize(ZEROS, ONES), seed=0), ContinuousFlow)


def test_a_coupling_flow_needs_two_dimensions(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="needs data of at least 2 dimensions, this has 1"):
        build_flow(tiny(), Standardize(ZEROS[:1], ONES[:1]), seed=0)


def test_any_dimension_builds(tiny: Tiny) -> None:
    flows: list[Flow] = [
        build_flow(tiny(), Standardize(torch.zeros(5), torch.ones(5)), seed=0),
        build_flow(tiny(model="ffjord"), Standardize(torch.zeros(1), torch.ones(1)), seed=0),
    ]
    assert [flow.sample(3).shape for flow in flows] == [(3, 5), (3, 1)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"covariances": [[[1.0, 2.0], [2.0, 1.0]]]}, "covariances"),
        ({"means": [[0.0], [1.0]]}, "means must have shape"),
    ],
)
def test_a_density_that_cannot_be_is_refused(
    tiny: Tiny, data: dict[str, Any], message: str
) -> None:
    raw = tiny().model_dump()
    raw["data"] |= {
        "means": [[0.0, 0.0]], "covariances": [[[1.0, 0.0], [0.0, 1.0]]], "weights": [1.0],
    } | data  # fmt: skip
    with pytest.raises(ConfigError, match=f"data: .*{message}"):
        build_density(validate(raw))


def test_a_density_whose_entropy_is_out_of_reach_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="data: a density with details of size"):
        build_density(tiny("data=eight_gaussians", "data.radius=3e5"))


def test_a_flow_is_evaluated_by_every_setting_of_its_solver(tiny: Tiny) -> None:
    config = tiny(
        "solver@evaluation.solver=dopri5", "evaluation.solver.rtol=1e-4",
        "evaluation.solver.atol=1e-5", "evaluation.solver.max_steps=77",
        "evaluation.solver.dtype=float64", "evaluation.solver.adjoint=true",
        "evaluation.solver.adjoint_rtol=0.5", "evaluation.solver.adjoint_seminorm=false",
        model="ffjord",
    )  # fmt: skip
    flow = build_flow(config, Standardize(ZEROS, ONES), seed=0)
    assert isinstance(flow, ContinuousFlow)
    assert flow.solver == Adaptive(
        name="dopri5", rtol=1e-4, atol=1e-5, max_steps=77, dtype="float64", adjoint=True,
        adjoint_rtol=0.5, adjoint_seminorm=False,
    )  # fmt: skip


# --- devices ------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Return a function that gives this machine so many GPUs, and perhaps Apple's."""

    def machine(gpus: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0 if gpus == 1 else 1)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (2, False, "auto", "cuda:1"),
        (2, False, "cuda", "cuda:1"),
        (2, False, "cuda:0", "cuda:0"),
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


# --- every option -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for each in options(Optimizer) for name in names(each)])
def test_every_optimizer_is_built_with_its_settings(tiny: Tiny, name: str) -> None:
    if name == "soap":
        pytest.importorskip("pytorch_optimizer")  # of the extra [optim]
    config = tiny(f"optimizer={name}", "optimizer.lr=0.125", "optimizer.betas=[0.5,0.75]")
    built = config.optimizer.build(Weights(torch.nn.Linear(2, 1)))
    (group,) = built.soap.param_groups if name == "soap" else [vars(getattr(built, "adam", built))]
    assert (built.lr, [*group["betas"]]) == (0.125, [0.5, 0.75])
    assert group["weight_decay"] == config.optimizer.settings().get("weight_decay", 0)


@pytest.mark.parametrize("name", [name for each in options(Model) for name in names(each)])
def test_every_model_is_built_in_the_dtype_of_the_config(tiny: Tiny, name: str) -> None:
    flow = build_flow(tiny("dtype=float64", model=name), Standardize(ZEROS, ONES), seed=0)
    assert (flow.dim, flow.dtype) == (2, torch.float64)
    assert flow.log_prob(torch.zeros(3, 2, dtype=torch.float64)).shape == (3,)
    assert isinstance(flow, ContinuousFlow) == tiny(model=name).model.continuous


@pytest.mark.parametrize(
    "name",
    [name for each in options(Data) for name in names(each) if name not in OF_A_FILE],
)
def test_every_data_set_is_built(compose: Callable[..., dict[str, Any]], name: str) -> None:
    known = {
        each
        for section in options(Data)
        if section.__name__ == "Sklearn"
        for each in names(section)
    }
    choice = [f"data={name}"] if name not in known else ["data=sklearn", f"data.name={name}"]
    config = validate(compose(*choice))
    data = build_data(config)
    assert isinstance(data, Table if name in known else Density)
    assert (build_density(config) is None) == (name in known) == (not config.data.known)
    assert config.data.on_grid == (name not in {*known, "logistic_regression"})


# --- splits and seeds ---------------------------------------------------------------------------


def test_every_seed_hangs_on_the_run_s_and_differs_from_the_others(tiny: Tiny) -> None:
    seeds = derive_seeds(tiny("seed=5"))
    assert seeds.keys() == {"weights", "batches", "train", "val", "test"}
    assert seeds == derive_seeds(tiny("seed=5", "data=moons", model="ffjord"))
    assert len({*seeds.values(), *derive_seeds(tiny("seed=6")).values()}) == 10


def test_splits_are_sampled_in_the_dtype_of_the_config_from_the_run_s_seeds(tiny: Tiny) -> None:
    config = tiny("dtype=float64", "seed=5")
    splits = build_splits(config, torch.device("cpu"))
    density = build_density(config)
    assert isinstance(density, Density)
    seeds = derive_seeds(config)
    for name, size in (("train", 512), ("val", 64), ("test", 64)):
        x = density.sample(size, torch.Generator().manual_seed(seeds[name]))
        assert torch.equal(getattr(splits, name).x, x)


def test_the_rows_of_a_table_are_split_alike_whatever_the_run_s_seed(
    compose: Callable[..., dict[str, Any]],
) -> None:
    def test_rows(*overrides: str) -> torch.Tensor:
        config = validate(compose("data=sklearn", "data.name=wine", *overrides))
        return build_splits(config, torch.device("cpu")).test.x

    assert torch.equal(test_rows("seed=0"), test_rows("seed=1"))
    assert not torch.equal(test_rows(), test_rows("splits.seed=1"))


def test_a_table_that_has_no_density_is_refused_and_a_doubtful_one_warned_of(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "points.csv"
    config = validate(compose("data=table", f"data.path={path}"))
    path.write_text("a,b\n" + "".join(f"{row},7\n" for row in range(200)))
    with pytest.raises(UserError) as caught:
        build_splits(config, torch.device("cpu"))
    assert str(caught.value).startswith("data: constant, so without a density: 'b'; choose")
    path.write_text("a,b\n" + "".join(f"{row},{row**2}\n" for row in range(20)))
    caplog.clear()
    with caplog.at_level("WARNING", logger="flowtrain"):
        build_splits(config, torch.device("cpu"))
    assert [line.split(";")[0] for line in caplog.messages] == [
        "data: 20 rows for 2 columns are few: below 50 a column even a Gaussian overfits"
    ]


def test_a_table_with_holes_is_refused_or_what_is_left_out_is_said(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path := tmp_path / "points.csv").write_text(
        "a,b\n" + "".join(f"{row},{row**2 if row % 10 else ''}\n" for row in range(200))
    )
    with pytest.raises(UserError) as caught:
        build_splits(validate(compose("data=table", f"data.path={path}")), torch.device("cpu"))
    assert str(caught.value) == (
        f"{path}, line 2, column 'b': the value is missing; fill it or drop the row; so is one in "
        "19 more rows; data.missing=drop leaves such rows out"
    )
    config = validate(compose("data=table", f"data.path={path}", "data.missing=drop"))
    with caplog.at_level("INFO", logger="flowtrain"):
        splits = build_splits(config, torch.device("cpu"))
    told = "data: 20 of 200 rows lack a value and are left out; 20 lack 'b'"
    assert told in caplog.messages
    assert sum(len(part.x) for part in (splits.train, splits.val, splits.test)) == 180


# --- pieces of the user's own -------------------------------------------------------------------

OWN = """
import math
import torch
from torch import nn
from flowtrain.densities import Density


class Box(Density):
    def __init__(self, side, mass=1.0):
        if side <= 0:
            raise ValueError(f"side must be > 0, got {side}")
        self.side, self.mass = side, mass
        low = torch.zeros(2, dtype=torch.float64)
        super().__init__(window=(low, low + side), resolution=side / 10)

    def sample(self, n, generator):
        return self.side * torch.rand(n, 2, generator=generator, dtype=torch.float64)

    def log_prob(self, x):
        inside = ((x >= 0) & (x <= self.side)).all(1)
        height = math.log(self.mass) - 2 * math.log(self.side)
        return torch.full_like(x[:, 0], height).where(inside, -torch.inf)


class Linear(nn.Module):
    def __init__(self, dim, *, width, depth, activation, factor=1.0):
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        self.factor = factor

    def forward(self, t, z, tangents):
        return self.linear(z), self.factor * self.linear(tangents)


class Wrong(Linear):
    def __init__(self, dim, **settings):
        super().__init__(dim, **settings, factor=2.0)


class Stubborn(nn.Module):
    pass
"""


@pytest.mark.parametrize("whitening", ["columns", "covariance"])
def test_a_column_that_is_constant_over_the_training_rows_is_refused(
    tiny: Tiny, whitening: str
) -> None:
    x = torch.tensor([[1.0, 3.3], [2.0, 3.3], [4.0, 3.3]], dtype=torch.float64)
    with pytest.raises(UserError, match=r"data: column 1 \(from 0\) is constant over the 3 train"):
        fit_whitening(tiny(f"model.whitening={whitening}"), Split(x))


@pytest.mark.parametrize("whitening", ["columns", "covariance"])
def test_a_posterior_s_flow_begins_at_laplace_s_approximation(tiny: Tiny, whitening: str) -> None:
    """Samples do not enter: their means are up to 0.3 deviations elsewhere."""
    config = tiny("data=logistic_regression", f"model.whitening={whitening}", model="affine")
    posterior = build_density(config)
    assert isinstance(posterior, Density)
    assert posterior.approximation is not None
    train = Split(posterior.sample(20_000, torch.Generator().manual_seed(1)), posterior)
    start = fit_whitening(config, train).forward(torch.zeros(1, 31).double())[0][0]
    deviation = torch.linalg.vector_norm(posterior.approximation.root, dim=1)
    apart = {
        "laplace": ((start - posterior.approximation.mean) / deviation).abs().max(),
        "samples": ((start - train.x.mean(0)) / deviation).abs().max(),
    }
    assert apart["laplace"] < 0.04  # 5 errors of 20,000 points
    assert apart["samples"] > 0.2


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work beside a file of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_pieces.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_pieces", None)


@pytest.mark.usefixtures("own")
def test_a_density_of_the_user_s_own_is_built_and_sampled(tiny: Tiny) -> None:
    config = tiny("data=custom", "data.target=own_pieces:Box", "++data.arguments.side=2")
    density = build_density(config)
    assert isinstance(density, Density)
    assert density.entropy == pytest.approx(math.log(4), abs=1e-6)
    assert float(build_splits(config, torch.device("cpu")).test.x.max()) <= 2


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["++data.arguments.side=-1"],
            "data: own_pieces:Box: ValueError: side must be > 0, got -1",
        ),
        (
            ["++data.arguments.side=2", "++data.arguments.mass=0.5"],
            "data: exp(log_prob) integrates to 0.5000 over the window, it must to 1",
        ),
        (["data.target=own_pieces:math"], "data: own_pieces:math: TypeError: 'module' object"),
        (["data.target=builtins:dict"], "data: a dict is no density: subclass flowtrain.densities"),
    ],
)
def test_a_density_that_breaks_the_contract_is_refused_in_one_line(
    tiny: Tiny, overrides: list[str], told: str
) -> None:
    config = tiny("data=custom", "data.target=own_pieces:Box", *overrides)
    with pytest.raises(ConfigError) as caught:
        build_data(config)
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.usefixtures("own")
def test_a_field_of_the_user_s_own_is_built(tiny: Tiny) -> None:
    config = tiny("model.field=own_pieces:Linear", model="ffjord")
    flow = build_flow(config, Standardize(ZEROS, ONES), seed=0)
    assert isinstance(flow, ContinuousFlow)
    assert type(flow.cnf.field).__name__ == "Linear"


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("own_pieces:Wrong", "model: the field's tangents must be J @ tangents; autograd differs"),
        ("own_pieces:Stubborn", "model.field: TypeError: "),
        ("own_pieces:Absent", "model.field: own_pieces has no 'Absent'"),
        ("own_absent:Field", "model.field: no module 'own_absent' on PYTHONPATH or in "),
    ],
)
def test_a_field_that_breaks_the_contract_is_refused_in_one_line(
    tiny: Tiny, field: str, told: str
) -> None:
    config = tiny(f"model.field={field}", model="ffjord")
    with pytest.raises(ConfigError) as caught:
        build_flow(config, Standardize(ZEROS, ONES), seed=0)
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 1
