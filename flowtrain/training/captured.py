"""`trainer.capture`: the step of every phase of a run, recorded before the first one."""

import logging
import time
import warnings
from dataclasses import replace

import torch

from flowtrain.progress import doing
from flowtrain.training.cuda_graph import CudaGraph
from flowtrain.training.run import Run
from flowtrain.training.step import gradient

log = logging.getLogger("flowtrain")


def capture_steps(run: Run) -> Run:
    """Return a run whose phases are recorded; no weight moves, and nothing is drawn for it.

    Raises:
        ConfigError: a step cannot be recorded.
    """
    began, phases = time.monotonic(), []
    points = run.draw(torch.Generator(run.device).manual_seed(0))  # the run's own stay as they are
    with doing("capturing"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of torch
        for phase in run.phases:
            graph = CudaGraph(
                gradient(run, phase.objective), run.weights.gradient, run.state.generator
            )
            graph.prepare(*points)
            phases.append(replace(phase, graph=graph))
    log.info("captured in %.1f s, before training", time.monotonic() - began)
    return replace(run, phases=phases)
