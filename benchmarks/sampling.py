"""Samples per second beside zuko and normflows: flows of the same size, in turns, on one CPU core.

    make sampling

Weights are random: what a discrete flow costs does not depend on them. An adaptive solver's steps
do, so the evaluations of the CNFs' fields are counted and the time of one is compared. Seconds are
of the CPU: other programs beside it count for little.
"""

import time
from collections.abc import Callable

import normflows
import torch
import zuko

from flowtrain.config.solver import Adaptive
from flowtrain.flows.continuous import ffjord
from flowtrain.flows.coupling import realnvp, spline
from flowtrain.flows.fields import ConcatSquash
from flowtrain.flows.flow import Standardize

COUPLINGS, HIDDEN, DEPTH = 24, 48, 2
SPLINES, BINS, WIDTH = 8, 16, 64
ROWS, ROUNDS = 16_384, 20

Sampler = Callable[[], object]


def main() -> None:
    """Time every sampler in turns, so that a busy moment falls on all of them, and print ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{ROWS:,} samples in 2D, the best of {ROUNDS} rounds, one thread, CPU seconds:")
    print("| flow | library | samples per second | ratio to flowtrain |")
    print("|---|---|--:|--:|")
    for flow, samplers in (("RealNVP", realnvps()), ("spline", splines())):
        best = in_turns(samplers)
        for library, seconds in best.items():
            ratio = best["flowtrain"] / seconds
            print(f"| {flow} | {library} | {ROWS / seconds:,.0f} | {ratio:.2f} |")
    samplers, counts = cnfs()
    best = in_turns(samplers)
    each = {library: best[library] / counts[library]() for library in best}
    for library, seconds in best.items():
        ratio = each["flowtrain"] / each[library]
        told = f"{ROWS / seconds:,.0f} with {counts[library]()} evaluations"
        print(f"| CNF | {library} | {told} | {ratio:.2f} an evaluation |")


@torch.no_grad()
def in_turns(samplers: dict[str, Sampler]) -> dict[str, float]:
    """Return the least CPU seconds of each sampler."""
    best = dict.fromkeys(samplers, float("inf"))
    for _ in range(ROUNDS):
        for library, sample in samplers.items():
            began = time.process_time()
            sample()
            best[library] = min(best[library], time.process_time() - began)
    return best


def realnvps() -> dict[str, Sampler]:
    """Return samplers of 24 affine couplings with conditioners of two layers of 48."""
    ours = realnvp(
        Standardize(torch.zeros(2), torch.ones(2)), couplings=COUPLINGS, hidden=HIDDEN,
        depth=DEPTH, activation="silu", log_scale_bound=3.0, mixing="alternate",
        generator=torch.Generator(),
    )  # fmt: skip
    theirs = zuko.flows.RealNVP(
        2, transforms=COUPLINGS, hidden_features=[HIDDEN] * DEPTH, activation=torch.nn.SiLU
    )
    layers: list[torch.nn.Module] = []
    for _ in range(COUPLINGS):
        layers.append(
            normflows.flows.AffineCouplingBlock(normflows.nets.MLP([1, *[HIDDEN] * DEPTH, 2]))
        )
        layers.append(normflows.flows.Permute(2, mode="swap"))
    other = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(2), layers)
    return {
        "flowtrain": lambda: ours.sample(ROWS),
        "zuko": lambda: theirs().sample((ROWS,)),
        "normflows": lambda: other.sample(ROWS),
    }


def splines() -> dict[str, Sampler]:
    """Return samplers of 8 spline couplings, or of as many autoregressive spline transforms."""
    ours = spline(
        Standardize(torch.zeros(2), torch.ones(2)), couplings=SPLINES, hidden=WIDTH, depth=DEPTH,
        activation="silu", bins=BINS, bound=4.0, mixing="lu",
        generator=torch.Generator(),
    )  # fmt: skip
    # Coupling, as ours is: passes=2 makes zuko's autoregressive transform one in 2D.
    theirs = zuko.flows.NSF(
        2,
        bins=BINS,
        transforms=SPLINES,
        passes=2,
        hidden_features=[WIDTH] * DEPTH,
        activation=torch.nn.SiLU,
    )
    layers: list[torch.nn.Module] = []
    for index in range(SPLINES):
        layers.append(
            normflows.flows.CoupledRationalQuadraticSpline(
                2, DEPTH, WIDTH, num_bins=BINS, reverse_mask=bool(index % 2)
            )
        )
        layers.append(normflows.flows.LULinearPermute(2))
    other = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(2), layers)
    return {
        "flowtrain": lambda: ours.sample(ROWS),
        "zuko": lambda: theirs().sample((ROWS,)),
        "normflows": lambda: other.sample(ROWS),
    }


def cnfs() -> tuple[dict[str, Sampler], dict[str, Callable[[], int]]]:
    """Return samplers of a field of three layers of 64, dopri5 at 1e-5, and their evaluations."""
    solver = Adaptive(name="dopri5", rtol=1e-5, atol=1e-5)
    ours = ffjord(
        Standardize(torch.zeros(2), torch.ones(2)), field=ConcatSquash, width=WIDTH, depth=3,
        activation="silu", divergence="auto", probes=None, noise=None, solver=solver,
        generator=torch.Generator(),
    )  # fmt: skip
    for parameter in ours.cnf.field.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs = zuko.flows.CNF(
        2, hidden_features=[WIDTH] * 3, activation=torch.nn.SiLU, atol=1e-5, rtol=1e-5
    )
    fields = {"flowtrain": ours.cnf.field, "zuko": theirs.transform.ode}
    samplers: dict[str, Sampler] = {
        "flowtrain": lambda: ours.sample(ROWS), "zuko": lambda: theirs().sample((ROWS,))
    }  # fmt: skip

    def counted(library: str) -> Callable[[], int]:
        def count() -> int:
            calls: list[None] = []
            hook = fields[library].register_forward_hook(lambda *_: calls.append(None))
            with torch.no_grad():
                samplers[library]()
            hook.remove()
            return len(calls)

        return count

    return samplers, {library: counted(library) for library in samplers}


if __name__ == "__main__":
    main()
