"""What every flow must hold, walked over all options of the group `model` and their variants."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowtrain.config.model import BASES, FIELDS, Model
from flowtrain.config.section import Section, names, options
from flowtrain.config.solver import Adaptive
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.from_zuko import FromZuko
from flowtrain.flows.linear import ConditionalLinear
from flowtrain.flows.smooth import SMOOTH

Make = Callable[..., Flow]
Randomize = Callable[[nn.Module, torch.Generator], None]

SECTIONS: dict[str, type[Section]] = {
    name: section for section in options(Model) for name in names(section)
}

STACK: dict[str, Any] = {"couplings": 4, "hidden": 16, "depth": 2, "activation": "silu"}
GLOW = STACK | {"log_scale_bound": 1.5}
REALNVP = GLOW | {"mixing": "alternate"}
SPLINE = STACK | {"bins": 5, "bound": 3.0, "mixing": "lu"}
MAF: dict[str, Any] = {
    "layers": 3, "hidden": 16, "depth": 2, "activation": "silu", "mixing": "reverse",
    "log_scale_bound": 1.5,
}  # fmt: skip
MAF_SPLINE = {k: v for k, v in MAF.items() if k != "log_scale_bound"} | {"bins": 5, "bound": 3.0}
FFJORD: dict[str, Any] = {
    "field": "concatsquash", "width": 16, "depth": 2, "activation": "tanh",
    "divergence": "auto", "probes": None, "noise": None, "features": None, "scale": None,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "affine": {}, "glow": GLOW, "realnvp": REALNVP, "spline": SPLINE, "ffjord": FFJORD,
    "maf": MAF, "iaf": MAF, "maf_spline": MAF_SPLINE,
    "planar": {"layers": 6}, "radial": {"layers": 6},
    "zuko": {"flow": "nsf", "transforms": 2, "arguments": {}},
    "normflows": {"flow": "nsf", "transforms": 2, "hidden": 16, "depth": 2, "arguments": {}},
}  # fmt: skip
SMALL = {"hidden_features": [8], "activation": "silu"}
ZUKO: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("nice", "maf", "nsf", "naf", "sospf", "bpf"), SMALL),
    "unaf": SMALL | {"network": {"hidden_features": [8]}},
    "gf": {},  # it has no network
}
NORMFLOWS = ("residual", "realnvp", "nsf", "maf", "nsf_ar")
# Of weights drawn at random, for float64 to invert the flow and for a grid to integrate it.
MILD = {
    "glow": 0.6, "spline": 0.5, "maf": 0.5, "iaf": 0.5, "maf_spline": 0.5, "planar": 0.6,
    "zuko": 0.5,
    "normflows-residual": 1.0, "normflows-nsf_ar": 0.3, "normflows": 0.5,
}  # fmt: skip

DOPRI5 = Adaptive(name="dopri5", rtol=1e-5, atol=1e-5, max_steps=200)
TIGHT = Adaptive(name="dopri8", rtol=1e-8, atol=1e-8)

CONTEXT = torch.tensor([0.7, -1.2], dtype=torch.float64)  # of the conditional flows
# name: (option, dimensions, what differs from the defaults). Those of p(x | c), which have a
# `context_dim`, are walked at one condition; CONDITIONAL ones below at several.
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{
        f"realnvp-{order}-{dim}d": ("realnvp", dim, {"mixing": order})
        for order in ("alternate", "random")
        for dim in (2, 3, 5)
    },
    **{f"glow-{dim}d": ("glow", dim, {}) for dim in (2, 3)},
    **{
        f"spline-{mixing}-{dim}d": ("spline", dim, {"mixing": mixing})
        for mixing in ("lu", "alternate", "random")
        for dim in (2, 3)
    },
    **{f"affine-{dim}d": ("affine", dim, {}) for dim in (1, 2, 3)},
    **{
        f"{option}-{mixing}-{dim}d": (option, dim, {"mixing": mixing})
        for option in ("maf", "iaf", "maf_spline")
        for mixing in ("reverse", "random", "lu")
        for dim in (1, 2, 4)
        if not (option != "maf_spline" and dim == 1)  # affine: no more than a shift and a scale
    },
    **{
        f"{option}-{dim}d": (option, dim, {})
        for option in ("planar", "radial")
        for dim in (1, 2, 3)
    },
    **{f"realnvp-{name}": ("realnvp", 2, {"activation": name}) for name in ("relu", "tanh")},
    **{
        f"zuko-{flow}-{dim}d": ("zuko", dim, {"flow": flow, "arguments": arguments})
        for flow, arguments in ZUKO.items()
        for dim in (2, 3)
    },
    **{
        f"normflows-{flow}-{dim}d": ("normflows", dim, {"flow": flow})
        for flow in NORMFLOWS
        for dim in (2, 3)
    },
    **{
        f"ffjord-{field}-{dim}d": ("ffjord", dim, {"field": field})
        for field in FIELDS
        for dim in (1, 2, 3)
    },
    **{
        f"ffjord-{field}-{name}": ("ffjord", 2, {"field": field, "activation": name})
        for field in FIELDS
        for name in SMOOTH
        if name != FFJORD["activation"]
    },
    **{
        f"ffjord-hutchinson-{noise}-{probes}": (
            "ffjord",
            3,
            {"divergence": "hutchinson", "noise": noise, "probes": probes},
        )
        for noise in ("rademacher", "gaussian")
        for probes in (1, 3)
    },
    **{
        f"conditional-{option}-{dim}d": (option, dim, {"context_dim": 2, **changes})
        for option, dim, changes in (
            ("affine", 1, {}), ("affine", 3, {}), ("realnvp", 2, {"mixing": "random"}),
            ("glow", 2, {}), ("spline", 3, {"mixing": "lu"}), ("maf", 3, {"mixing": "lu"}),
            ("iaf", 3, {"mixing": "reverse"}), ("maf_spline", 1, {"mixing": "lu"}),
            ("maf_spline", 3, {"mixing": "random"}), ("planar", 2, {}), ("radial", 3, {}),
        )
    },
    **{
        f"conditional-zuko-{flow}": (
            "zuko", 2, {"context_dim": 2, "flow": flow, "arguments": ZUKO[flow]}
        )
        for flow in ("nsf", "gf")
    },
    **{
        f"conditional-normflows-{flow}": ("normflows", 3, {"context_dim": 2, "flow": flow})
        for flow in ("nsf", "maf", "nsf_ar")
    },
    **{
        f"conditional-ffjord-{field}": ("ffjord", 2, {"context_dim": 2, "field": field})
        for field in FIELDS
    },
    **{
        f"{option}-{base}": (option, 2, {"base": base})
        for option in SETTINGS
        for base in BASES
        if base != "normal"
    },
}  # fmt: skip
CONDITIONAL = [name for name in CASES if name.startswith("conditional")]


@pytest.fixture
def make(randomize: Randomize) -> Make:
    """Return a builder of the named case; other seeds also whiten otherwise."""

    def build(
        name: str, *, seed: int = 0, dtype: torch.dtype = torch.float64, given: bool = True
    ) -> Flow:
        option, dim, changes = CASES[name]
        if option in ("zuko", "normflows"):
            pytest.importorskip(option)
        generator = torch.Generator().manual_seed(seed)
        standardize = Standardize(seed + 0.5 + torch.arange(dim), seed + 1.5 + torch.arange(dim))
        context: dict[str, Any] = {"generator": generator}
        if option == "ffjord":
            context["solver"] = DOPRI5
        shared = {"whitening": "columns", "base": "normal", "components": None}
        settings = {"name": option, **shared, **SETTINGS[option], **changes}
        if "context_dim" in settings:
            context["context_dim"] = settings.pop("context_dim")
        section = SECTIONS[option](**settings)
        assert isinstance(section, Model)
        with torch.random.fork_rng(devices=[]):  # other libraries draw permutations from it
            torch.manual_seed(seed)
            flow: Flow = section.build(standardize, **context)
        flow.base = section.build_base(dim, generator=generator)
        randomize(flow, generator)
        for parameter in flow.parameters():
            kind = name.removeprefix("conditional-")
            parameter.data.mul_(next((v for k, v in MILD.items() if kind.startswith(k)), 1.0))
        if changes.get("flow") == "residual":
            for _ in range(20):  # the norms of its matrices are followed as gradients arrive
                flow.log_prob(points(name)).sum().backward()
            flow.zero_grad()
        flow = flow.to(dtype)
        return flow.given(CONTEXT.to(dtype)) if flow.context_dim and given else flow

    return build


def points(name: str, n: int = 5, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, CASES[name][1], generator=generator, dtype=torch.float64)


def accurate(flow: Flow) -> tuple[Flow, float]:
    """Return a flow that is solved to a tight tolerance, and how well it should do."""
    if any(isinstance(part, FromZuko) for part in flow.modules()):
        return flow, 1e-5  # a bisection's
    if not isinstance(flow, ContinuousFlow):
        return flow, 1e-8  # splines of random weights are steep
    return flow.with_solver(TIGHT), 1e-6


def log_det_by_autograd(function: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> Tensor:
    z = z.clone().requires_grad_()
    x = function(z)[0]
    rows = [torch.autograd.grad(x[:, i].sum(), z, retain_graph=True)[0] for i in range(z.shape[1])]
    return torch.stack(rows, 1).slogdet().logabsdet


def test_every_model_is_walked() -> None:
    assert {option for option, _, _ in CASES.values()} == set(SECTIONS) == set(SETTINGS)


@pytest.mark.parametrize("name", CASES)
def test_log_dets_and_log_prob_follow_the_autograd_jacobian(name: str, make: Make) -> None:
    flow, tolerance = accurate(make(name))
    z = points(name)
    x, log_det = flow(z)
    close = partial(torch.testing.assert_close, rtol=0, atol=tolerance)
    expected = log_det_by_autograd(flow, z)
    close(log_det, expected)
    close(flow.log_prob(x), flow.base.log_prob(z) - expected)  # its law: test_bases.py
    x = x.detach()
    close(flow.inverse(x)[1], log_det_by_autograd(flow.inverse, x))
    if CASES[name][0] != "affine":
        assert (log_det - flow(0 * z)[1]).abs().max() > 0.01  # or it tests a linear map


@pytest.mark.parametrize("name", CASES)
def test_inverse_undoes_forward(name: str, make: Make) -> None:
    flow, tolerance = accurate(make(name))
    z = points(name)
    x, log_det = flow(z)
    back, back_log_det = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=tolerance)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=tolerance)
    assert (x - z).abs().max() > 0.1


@pytest.mark.parametrize("name", CASES)
def test_training_and_evaluation_mode_are_one_function(name: str, make: Make) -> None:
    flow, x = make(name), points(name)
    draws = [flow.train(mode).sample(5, torch.Generator().manual_seed(2)) for mode in (True, False)]
    assert torch.equal(*draws)
    log_probs = [flow.train(mode).log_prob(x) for mode in (True, False)]
    assert torch.equal(*log_probs)
    if isinstance(flow, ContinuousFlow):
        found = [
            flow.train(mode).likelihood(x, kinetic=True, jacobian=True) for mode in (True, False)
        ]
        assert torch.equal(found[0].log_prob, log_probs[0])
        for key in ("log_prob", "kinetic", "jacobian"):
            assert torch.equal(*(getattr(each, key) for each in found))
        assert found[0].evaluations == found[1].evaluations


@pytest.mark.parametrize(
    "name",
    [
        "realnvp-random-2d",
        "spline-lu-2d",
        "ffjord-concatsquash-2d",
        "maf-reverse-2d",
        "iaf-lu-2d",
        "maf_spline-lu-2d",
        "planar-2d",
        "radial-2d",
        *(f"zuko-{flow}-2d" for flow in ZUKO),
        *(f"normflows-{flow}-2d" for flow in NORMFLOWS),
    ],
)
def test_density_has_mass_one(name: str, make: Make) -> None:
    flow = make(name)
    if isinstance(flow, ContinuousFlow):
        flow = flow.with_solver(Adaptive(name="dopri5", rtol=1e-4, atol=1e-4, max_steps=100))
    sample = flow.sample(2000, torch.Generator().manual_seed(0))
    middle, reach = sample.mean(0), 2 * (sample - sample.mean(0)).abs().amax(0)
    axes = [torch.linspace(-1, 1, 201, dtype=torch.float64) * r for r in reach]
    area = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    with torch.no_grad():
        nodes = (torch.cartesian_prod(*axes) + middle).split(4096)
        mass = sum(flow.log_prob(part).exp().sum().item() for part in nodes) * float(area)
    assert math.isclose(mass, 1.0, abs_tol=5e-3)


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_every_parameter(name: str, make: Make) -> None:
    flow, x = make(name), points(name)
    if isinstance(flow, ContinuousFlow):
        log_prob = flow.likelihood(x, divergence=flow.training_divergence).log_prob
    else:
        log_prob = flow.log_prob(x)
    log_prob.mean().backward()
    for key, parameter in flow.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 1e-9, key


@pytest.mark.parametrize("name", CASES)
def test_state_dict_is_the_whole_function(name: str, make: Make) -> None:
    flow, other, x = make(name), make(name, seed=1), points(name)
    assert not torch.equal(flow.log_prob(x), other.log_prob(x))
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow.log_prob(x), other.log_prob(x))
    draws = [each.sample(5, torch.Generator().manual_seed(2)) for each in (flow, other)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_float64(name: str, make: Make) -> None:
    flow, x = make(name, dtype=torch.float32), points(name)
    log_prob = flow.log_prob(x.float())
    assert log_prob.dtype == flow.sample(3).dtype == torch.float32
    torch.testing.assert_close(log_prob.double(), make(name).log_prob(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_samples_depend_on_their_generator_alone(name: str, make: Make) -> None:
    flow = make(name)
    before = torch.get_rng_state()
    first = flow.sample(7, torch.Generator().manual_seed(3))
    again = flow.sample(7, torch.Generator().manual_seed(3))
    other = flow.sample(7, torch.Generator().manual_seed(4))
    assert first.shape == (7, CASES[name][1])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.requires_grad


@pytest.mark.parametrize("name", CASES)
def test_of_no_points_there_are_no_densities(name: str, make: Make) -> None:
    flow = make(name)
    none, log_prob = flow.sample_with_log_prob(0, torch.Generator().manual_seed(0))
    assert flow.sample(0).shape == none.shape == (0, flow.dim)
    assert flow.log_prob(none).shape == log_prob.shape == (0,)


@pytest.mark.parametrize("name", ["realnvp-random-3d", "spline-lu-3d", "ffjord-concatsquash-3d"])
def test_samples_are_the_base_carried_forward(name: str, make: Make) -> None:
    flow, tolerance = accurate(make(name))
    z = flow.sample_base(50, torch.Generator().manual_seed(3))
    sample = flow.sample(50, torch.Generator().manual_seed(3))
    assert abs(z.mean()) < 0.3
    assert 0.8 < z.std() < 1.2
    torch.testing.assert_close(sample, flow(z)[0], rtol=0, atol=tolerance)
    assert torch.equal(sample, flow.to_data(z))


@pytest.mark.parametrize("name", CASES)
def test_samples_come_with_their_log_prob(name: str, make: Make) -> None:
    flow, tolerance = accurate(make(name))
    x, log_q = flow.sample_with_log_prob(9, torch.Generator().manual_seed(3))
    close = partial(torch.testing.assert_close, rtol=0, atol=10 * tolerance)
    close(x, flow.sample(9, torch.Generator().manual_seed(3)))
    close(log_q, flow.log_prob(x).detach())
    assert not log_q.requires_grad


def test_standardize_is_the_fixed_affine_map() -> None:
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5])
    standardize, z = Standardize(mean, std), torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    x, log_det = standardize(z)
    torch.testing.assert_close(x, torch.tensor([[1.0, -2.0], [3.0, -2.5]]))
    torch.testing.assert_close(log_det, torch.zeros(2))  # log 2 + log 1/2
    torch.testing.assert_close(standardize.inverse(x)[0], z)
    assert not list(standardize.parameters())
    assert set(standardize.state_dict()) == {"mean", "std"}


# --- points of other kinds ----------------------------------------------------------------------


def test_fewer_points_than_none_are_refused() -> None:
    flow = Flow([], Standardize(torch.zeros(2), torch.ones(2)))
    assert flow.sample(0).shape == (0, 2)
    with pytest.raises(ValueError, match="n must be 0 or more points, got -1"):
        flow.sample(-1)


def test_what_is_no_number_of_points_or_no_generator_is_refused() -> None:
    flow = Flow([], Standardize(torch.zeros(2), torch.ones(2)))
    assert flow.sample(cast(int, np.int64(3))).shape == (3, 2)
    for draw in (flow.sample, flow.sample_with_log_prob):
        with pytest.raises(TypeError, match=r"^n must be a whole number of points, got 3\.0$"):
            draw(cast(int, 3.0))
        with pytest.raises(TypeError, match=r"^generator must be a torch\.Generator, got 0: try "):
            draw(3, cast(torch.Generator, 0))


@pytest.mark.parametrize("name", ["realnvp-alternate-2d", "spline-lu-2d", "ffjord-time_mlp-2d"])
def test_float64_points_in_a_float32_flow_give_float64(name: str, make: Make) -> None:
    flow = make(name, dtype=torch.float32)
    exact = copy.deepcopy(flow).double()
    x = 1.0 + torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z, log_det = flow.inverse(x)
    for value, truth in (
        (flow.log_prob(x), exact.log_prob(x)),
        (z, exact.inverse(x)[0]),
        (log_det, exact.inverse(x)[1]),
        (flow(z)[0], x),
        (flow.to_data(z), x),
    ):
        assert value.dtype == torch.float64
        assert torch.allclose(value, truth, rtol=0, atol=5e-3)  # an ODE at 1e-5
    assert flow.log_prob(x.float()).dtype == torch.float32
    assert flow.log_prob(x.bfloat16()).dtype == torch.bfloat16


def test_float64_points_are_whitened_in_float64() -> None:
    """A clock of 1.7e9 seconds has steps of 128 in float32."""
    flow = Flow([], Standardize(torch.tensor([1.7e9]), torch.tensor([1.0])))
    assert isinstance(flow.standardize, Standardize)
    x = torch.tensor([[1.7e9 + 0.5]], dtype=torch.float64) + (flow.standardize.mean - 1.7e9)
    assert flow.inverse(x)[0].item() == 0.5
    assert flow.to_data(torch.tensor([[0.5]], dtype=torch.float64)).item() == x.item()


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        ([[0.0, 0.0]], TypeError, "must be a torch tensor, got builtins.list"),
        (np.zeros((3, 2)), TypeError, r"got numpy.ndarray: try torch.as_tensor\(x\)"),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError, r"got torch.int64: try x.double\(\)"),
        (torch.zeros(3), ValueError, r"must have shape \(n, 2\), got \(3,\)$"),
        (torch.zeros(2), ValueError, r"got \(2,\): for a single one, x\[None\]"),
        (torch.zeros(3, 5), ValueError, r"got \(3, 5\)"),
        (torch.zeros(3, 2, device="meta"), ValueError, "the points are on meta, the flow on cpu"),
    ],
)
@pytest.mark.parametrize("name", ["realnvp-alternate-2d", "ffjord-time_mlp-2d"])
def test_points_that_do_not_fit_are_refused_in_words(
    name: str, make: Make, points: Any, error: type[Exception], message: str
) -> None:
    flow = make(name)
    for method in (flow.log_prob, flow.inverse, flow, flow.to_data):
        with pytest.raises(error, match=message):
            method(points)


# --- conditions ---------------------------------------------------------------------------------


def test_every_model_is_walked_with_a_condition() -> None:
    assert {CASES[name][0] for name in CONDITIONAL} == SECTIONS.keys()


@pytest.mark.parametrize("name", CONDITIONAL)
def test_each_row_is_of_its_own_condition(name: str, make: Make) -> None:
    flow, tolerance = accurate(make(name, given=False))
    z = points(name)
    contexts = torch.stack([CONTEXT + row for row in range(len(z))])
    x, log_det = flow(z, contexts)
    back, back_log_det = flow.inverse(x, contexts)
    log_q = flow.log_prob(x, contexts)
    close = partial(torch.testing.assert_close, rtol=0, atol=10 * tolerance)
    for row, context in enumerate(contexts):
        at, one = flow.given(context), slice(row, row + 1)
        for found, expected in (
            ((x[one], log_det[one]), at(z[one])),
            ((back[one], back_log_det[one]), at.inverse(x[one])),
            ((log_q[one],), (at.log_prob(x[one]),)),
            ((flow.to_data(z, contexts)[one],), (at.to_data(z[one]),)),
        ):
            for each, wanted in zip(found, expected, strict=True):
                close(each, wanted)
    close(back, z)
    assert (x - flow(z, contexts[0])[0])[1:].abs().amax(1).min() > 0.01, "no row depends on it"


@pytest.mark.parametrize("name", CONDITIONAL)
def test_gradients_of_a_conditional_likelihood_reach_every_weight(name: str, make: Make) -> None:
    flow = make(name, given=False)
    context = torch.randn(5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    flow.log_prob(points(name), context).sum().backward()
    for key, weight in flow.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.any(), key


@pytest.mark.parametrize("name", ["conditional-spline-3d", "conditional-ffjord-fourier"])
def test_samples_are_of_the_conditions_asked_for(name: str, make: Make) -> None:
    flow, _ = accurate(make(name, given=False))

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    at = flow.given(CONTEXT)
    assert torch.equal(flow.sample(4, seeded(), CONTEXT), at.sample(4, seeded()))
    x, log_q = flow.sample_with_log_prob(4, seeded(), CONTEXT.expand(4, -1))
    assert torch.equal(x, at.sample_with_log_prob(4, seeded())[0])
    torch.testing.assert_close(log_q, flow.log_prob(x, CONTEXT), rtol=0, atol=1e-3)
    if isinstance(flow, ContinuousFlow) and isinstance(at, ContinuousFlow):
        times = torch.linspace(0, 1, 3, dtype=torch.float64)
        z = points(name)
        assert torch.equal(flow.trajectory(z, times, context=CONTEXT), at.trajectory(z, times))
        evolved = flow.evolution(z, times, CONTEXT), at.evolution(z, times)
        assert all(torch.equal(*pair) for pair in zip(*evolved, strict=True))
        assert torch.equal(flow.velocity(0.3, z, CONTEXT), at.velocity(0.3, z))
        assert torch.equal(flow.log_prob_at(0.5, z, CONTEXT), at.log_prob_at(0.5, z))


def test_a_condition_that_is_missing_misplaced_or_misshapen_is_refused(make: Make) -> None:
    flow, plain = make("conditional-spline-3d", given=False), make("spline-lu-3d")
    x = points("spline-lu-3d")
    with pytest.raises(
        ValueError, match=r"is of p\(x \| c\): context is needed, of shape \(5, 2\)"
    ):
        flow.log_prob(x)
    with pytest.raises(ValueError, match=r"context must have shape \(5, 2\).*got \(4, 2\)"):
        flow.log_prob(x, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"or \(2,\) for all points alike, got \(3,\)"):
        flow.sample(5, context=torch.zeros(3))
    with pytest.raises(TypeError, match=r"floating-point torch tensor, got torch.int64"):
        flow.inverse(x, torch.zeros(5, 2, dtype=torch.int64))
    for call in (plain.log_prob, plain.inverse, plain, plain.to_data):
        with pytest.raises(ValueError, match="has no condition: leave context out"):
            call(x, CONTEXT)
    with pytest.raises(ValueError, match="has no condition"):
        plain.given(CONTEXT)
    with pytest.raises(ValueError, match="conditions of different sizes"):
        Flow(
            [ConditionalLinear(3, context_dim=1), ConditionalLinear(3, context_dim=2)],
            plain.standardize,
        )
