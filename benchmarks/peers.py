"""Flows of other libraries in PyTorch, each of the size of this project's, in training."""

from collections.abc import Callable

import nflows.distributions
import nflows.flows
import nflows.nn.nets
import nflows.transforms
import normflows
import torch
import torchcfm
import zuko
from nflows.utils.torchutils import create_alternating_binary_mask
from torch import Tensor, nn
from torchcfm.models.models import MLP

from benchmarks.learners import (
    BINS,
    BOUND,
    COUPLINGS,
    HIDDEN,
    SOLVER,
    SPLINES,
    WIDTH,
    Peer,
    WithTangents,
)
from flowtrain.flows.cnf import CNF, Divergence
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Standardize


def by_likelihood(
    flow: nn.Module, log_prob: Callable[[Tensor], Tensor], lr: float
) -> Callable[[Tensor], Peer]:
    """Return what trains a library's flow on points by maximum likelihood."""
    return lambda points: Peer(flow, lambda x: -log_prob(x).mean(), log_prob, lr, points)


def zuko_peer(flow: zuko.flows.Flow, points: Tensor, lr: float = 1e-3) -> Peer:
    """Return a flow of zuko in training; the rate is its tutorials'."""

    def log_prob(x: Tensor) -> Tensor:
        found: Tensor = flow().log_prob(x)
        return found

    return by_likelihood(flow, log_prob, lr)(points)


def zuko_realnvp(points: Tensor) -> Peer:
    """Return zuko's affine couplings, of the size of ours."""
    flow = zuko.flows.RealNVP(
        2, transforms=COUPLINGS, hidden_features=[HIDDEN] * 2, activation=nn.SiLU
    )
    return zuko_peer(flow, points)


def zuko_nsf(points: Tensor) -> Peer:
    """Return zuko's spline couplings, of the size of ours: two passes make them couplings."""
    flow = zuko.flows.NSF(
        2, bins=BINS, transforms=SPLINES, passes=2, hidden_features=[WIDTH] * 2, activation=nn.SiLU
    )
    return zuko_peer(flow, points)


def zuko_cnf(points: Tensor, **tolerances: float) -> Peer:
    """Return zuko's CNF with an exact trace, of the size of ours; its own tolerances or given."""
    flow = zuko.flows.CNF(
        2, hidden_features=[WIDTH] * 3, activation=nn.SiLU, exact=True, **tolerances
    )
    return zuko_peer(flow, points)


def normflows_realnvp(points: Tensor, activation: Callable[[], nn.Module] = nn.ReLU) -> Peer:
    """Return normflows' affine couplings, as its examples stack them, of the size of ours."""
    layers: list[nn.Module] = []
    for _ in range(COUPLINGS):
        network = normflows.nets.MLP([1, HIDDEN, HIDDEN, 2], init_zeros=True)
        for place, layer in enumerate(network.net):
            if isinstance(layer, nn.LeakyReLU):  # of slope 0: its only one
                network.net[place] = activation()
        layers += [
            normflows.flows.AffineCouplingBlock(network),
            normflows.flows.Permute(2, mode="swap"),
        ]
    return normflows_peer(layers, points)


def normflows_nsf(points: Tensor) -> Peer:
    """Return normflows' spline couplings, of the size of ours."""
    layers: list[nn.Module] = []
    for index in range(SPLINES):
        spline = normflows.flows.CoupledRationalQuadraticSpline(
            2, 2, WIDTH, num_bins=BINS, reverse_mask=bool(index % 2)
        )
        layers += [spline, normflows.flows.LULinearPermute(2)]
    return normflows_peer(layers, points)


def normflows_peer(layers: list[nn.Module], points: Tensor) -> Peer:
    """Return layers of normflows in training; the rate is its examples'."""
    flow = normflows.NormalizingFlow(
        normflows.distributions.DiagGaussian(2, trainable=False), layers
    )
    return Peer(flow, flow.forward_kld, flow.log_prob, 5e-4, points)


def nflows_realnvp(points: Tensor) -> Peer:
    """Return nflows' affine couplings, of the size of ours; halves take turns by their masks."""
    layers: list[nn.Module] = [
        nflows.transforms.AffineCouplingTransform(
            create_alternating_binary_mask(2, even=bool(index % 2)),
            lambda given, outputs: NflowsNetwork(given, outputs, HIDDEN),
        )
        for index in range(COUPLINGS)
    ]
    return nflows_peer(layers, points)


def nflows_nsf(points: Tensor) -> Peer:
    """Return nflows' spline couplings, of the size of ours."""
    layers: list[nn.Module] = []
    for index in range(SPLINES):
        spline = nflows.transforms.PiecewiseRationalQuadraticCouplingTransform(
            create_alternating_binary_mask(2, even=bool(index % 2)),
            lambda given, outputs: NflowsNetwork(given, outputs, WIDTH),
            num_bins=BINS,
            tails="linear",
            tail_bound=BOUND,
        )
        layers += [spline, nflows.transforms.LULinear(2, identity_init=True)]
    return nflows_peer(layers, points)


class NflowsNetwork(nflows.nn.nets.MLP):  # type: ignore[misc]
    """A conditioner of two hidden layers, called with a condition that is None."""

    def __init__(self, given: int, outputs: int, width: int) -> None:
        super().__init__([given], [outputs], [width] * 2, activation=nn.functional.silu)
        self.hidden_features = width  # by which its splines scale what goes into a softmax

    def forward(self, given: Tensor, _: None) -> Tensor:
        moved: Tensor = super().forward(given)
        return moved


def nflows_peer(layers: list[nn.Module], points: Tensor) -> Peer:
    """Return layers of nflows in training; the rate is its examples'."""
    flow = nflows.flows.Flow(
        nflows.transforms.CompositeTransform(layers), nflows.distributions.StandardNormal([2])
    )
    return by_likelihood(flow, flow.log_prob, 1e-3)(points)


def torchcfm_field(dim: int, *, width: int, depth: int, activation: str) -> WithTangents:
    """Return torchcfm's network, which has three layers of SELU, as a field of this project's."""
    return WithTangents(MLP(dim=dim, time_varying=True, w=width))


def torchcfm_matching(points: Tensor) -> Peer:
    """Return torchcfm's network and loss, as its 2-D tutorial has them."""
    field = torchcfm_field(2, width=WIDTH, depth=3, activation="selu")
    matcher = torchcfm.ConditionalFlowMatcher(sigma=0.0)

    def loss(x: Tensor) -> Tensor:
        t, z, velocity = matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        residual: Tensor = field.network(torch.cat([z, t[:, None]], -1)) - velocity
        return residual.square().mean()

    cnf = CNF(field, dim=2, solver=SOLVER, divergence=Divergence())
    flow = ContinuousFlow(cnf, Standardize(torch.zeros(2), torch.ones(2)))
    return Peer(field, loss, flow.log_prob, 1e-3, points)
