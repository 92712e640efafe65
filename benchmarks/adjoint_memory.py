"""Peak memory of a training step, by backpropagation and by the adjoint, against evaluations.

    make adjoint-memory

Each figure is the growth of a fresh process's peak resident memory over one gradient of a
continuous flow's likelihood, on 20,000 points in 2D.
"""

import resource
import subprocess
import sys

import torch

from flowtrain.config.solver import FixedStep
from flowtrain.flows.continuous import ffjord
from flowtrain.flows.fields import ConcatSquash
from flowtrain.flows.flow import Standardize

POINTS = 20_000
STEP_SIZES = (0.5, 0.25, 0.125, 0.0625)


def main() -> None:
    """Print a Markdown table, a row for each step size of RK4."""
    print("| evaluations forward | backpropagation (MiB) | adjoint (MiB) |")
    print("|--:|--:|--:|")
    for step_size in STEP_SIZES:
        rows = [measured_elsewhere(step_size, adjoint) for adjoint in (False, True)]
        print(f"| {rows[0][0]} | {rows[0][1]} | {rows[1][1]} |", flush=True)


def measured_elsewhere(step_size: float, adjoint: bool) -> list[str]:
    """Return evaluations and mebibytes, measured by a process of its own."""
    command = [sys.executable, __file__, str(step_size), str(int(adjoint))]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def measure(step_size: float, adjoint: bool) -> None:
    """Take one gradient and print its evaluations and the growth of the peak memory."""
    solver = FixedStep(name="rk4", step_size=step_size, adjoint=adjoint)
    generator = torch.Generator().manual_seed(0)
    flow = ffjord(
        Standardize(torch.zeros(2), torch.ones(2)),
        field=ConcatSquash,
        width=64,
        depth=3,
        activation="tanh",
        divergence="exact",
        probes=None,
        noise=None,
        solver=solver,
        generator=generator,
    )
    x = torch.randn(POINTS, 2, generator=generator)
    flow.likelihood(x[:10]).log_prob.mean().backward()  # what a first call allocates for good
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = flow.likelihood(x)
    (-found.log_prob.mean()).backward()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(found.evaluations.forward, (after - before) // 1024)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        measure(float(sys.argv[1]), bool(int(sys.argv[2])))
