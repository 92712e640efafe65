"""Flows in JAX, each of the size of this project's, their training steps compiled by XLA."""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import equinox
import jax
import numpy as np
import optax
import paramax
import torch
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow
from jax import numpy as jnp
from torch import Tensor

from benchmarks.learners import BATCH, BINS, BOUND, CLIP, SPLINES, STEPS, WIDTH
from flowtrain.flows.flow import Standardize


class Jitted:
    """A tree of JAX's in training: Adam's direction, clipped, at a rate that is given.

    Args:
        tree: with weights in it.
        log_prob: of a tree, on whitened points.
        lr: Adam's, at first.
        points: (n, 2).
    """

    def __init__(
        self, tree: Any, log_prob: Callable[[Any, Any], Any], lr: float, points: Tensor
    ) -> None:
        mean, std = points.mean(0), points.std(0)
        self.standardize = Standardize(mean, std)
        self.white = self.standardize.inverse(points)[0].numpy()
        self.lr = lr
        self.random = np.random.default_rng(0)
        self.weights, fixed = equinox.partition(
            tree,
            equinox.is_inexact_array,
            is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
        )
        optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam())
        self.state = optimizer.init(self.weights)

        def whole(weights: Any) -> Any:
            return paramax.unwrap(equinox.combine(weights, fixed))

        def update(weights: Any, state: Any, batch: Any, rate: float) -> Any:
            slope = jax.grad(lambda w: -log_prob(whole(w), batch).mean())(weights)
            move, state = optimizer.update(slope, state)
            return jax.tree.map(lambda w, by: w - rate * by, weights, move), state

        self.update = jax.jit(update)
        self.white_log_prob = jax.jit(lambda weights, x: log_prob(whole(weights), x))

    def step(self, done: float) -> None:
        rate = self.lr * 0.5 * (1 + math.cos(math.pi * done))
        batch = self.white[self.random.integers(len(self.white), size=BATCH)]
        self.weights, self.state = self.update(self.weights, self.state, batch, rate)
        jax.block_until_ready(self.weights)

    def log_prob(self, x: Tensor) -> Tensor:
        white, log_det = self.standardize.inverse(x)
        found = self.white_log_prob(self.weights, white.numpy())
        return torch.from_numpy(np.array(found)) + log_det


def flowjax_nsf(points: Tensor) -> Jitted:
    """Return flowjax's spline couplings; the rate is its own."""
    flow = coupling_flow(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(2)),
        transformer=RationalQuadraticSpline(knots=BINS, interval=BOUND),
        flow_layers=SPLINES,
        nn_width=WIDTH,
        nn_depth=2,
        nn_activation=jax.nn.silu,
    )
    return Jitted(flow, lambda tree, x: tree.log_prob(x), 5e-4, points)


def diffrax_cnf(points: Tensor) -> Jitted:
    """Return a CNF by diffrax, with the exact trace of its documentation, in fixed steps."""
    network = equinox.nn.MLP(3, 2, WIDTH, 3, activation=jax.nn.silu, key=jax.random.key(0))
    return Jitted(network, cnf_log_prob, 1e-3, points)


def cnf_log_prob(network: Any, x: Any) -> Any:
    """Return the log-density of a CNF, (n, 2) -> (n,)."""

    def moving(t: Any, state: Any, _: Any) -> Any:
        velocity, back = jax.vjp(lambda z: network(jnp.append(z, t)), state[0])
        (jacobian,) = jax.vmap(back)(jnp.eye(2))
        return velocity, jnp.trace(jacobian)

    def single(point: Any) -> Any:
        solved = diffrax.diffeqsolve(
            diffrax.ODETerm(moving), diffrax.Midpoint(), 1.0, 0.0, -1 / STEPS, (point, 0.0)
        )
        (z,), (log_det,) = solved.ys
        return jax.scipy.stats.norm.logpdf(z).sum() + log_det

    return jax.vmap(single)(x)
