"""`trainer.compile`: what a step asks of a flow, compiled by torch before the first one.

The compiled flow shares the weights of the run's own, which everything else goes on to use:
evaluations, checkpoints and exports know nothing of it. What a compiler writes is kept in the
user's cache (`CACHE`), so that only the first run of a model waits for it.
"""

import copy
import logging
import os
import shutil
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from flowtrain.errors import ConfigError
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow
from flowtrain.flows.ode import SolverError
from flowtrain.progress import doing

if TYPE_CHECKING:
    from flowtrain.training.run import Run

log = logging.getLogger("flowtrain")

LEAVE = "leave trainer.compile=false"
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # torch's own is in /tmp, which a job or a reboot clears


def compile_flow(flow: Flow) -> Flow:
    """Return a flow whose maps are compiled when they are first used, weights shared.

    Of a continuous flow that is the field with its tangents, the bulk of an ODE's right-hand side
    and all of flow matching; of any other its two directions, each as a whole.

    Raises:
        ConfigError: there is no C++ compiler, which torch needs where the weights are on the CPU.

    >>> from flowtrain import load
    >>> flow = load(run_folder)
    >>> compiled = compile_flow(flow)
    >>> next(compiled.parameters()) is next(flow.parameters())
    True
    """
    if flow.device.type == "cpu":
        _refuse_without_compiler()
    _keep_in_cache()
    if isinstance(flow, ContinuousFlow):
        field = torch.compile(flow.cnf.field, dynamic=False, fullgraph=True)
        return flow.with_field(cast(nn.Module, field))
    compiled = copy.copy(flow)
    for direction in ("forward", "inverse"):  # what `log_prob` and samples are made of
        whole = torch.compile(getattr(flow, direction), dynamic=False, fullgraph=True)
        setattr(compiled, direction, whole)
    return compiled


def compile_steps(run: "Run") -> None:
    """Take a step of every phase, forth and back, without moving a weight; tell how long it took.

    Raises:
        ConfigError: torch cannot compile this flow.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    began = time.monotonic()
    generator = torch.Generator(run.device).manual_seed(0)  # the run's own batches stay as they are
    x, *given = run.draw(generator)
    try:
        with doing("compiling"), suppress(SolverError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's compiler warns of torch
            for phase in run.phases:
                phase.at(0.0)(run.trained, x, generator, *given)[0].backward()
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        first, *more = str(error).strip().splitlines()
        why = more[0] if more and first.endswith("raised:") else first
        raise ConfigError(
            f"trainer.compile: torch cannot compile {run.config.model.name} here ({why}); {LEAVE}"
        ) from error
    finally:
        run.weights.zero_gradient()
    log.info("compiled in %.1f s, before training", time.monotonic() - began)


def _refuse_without_compiler() -> None:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if sys.platform != "win32" and shutil.which(compiler) is None:
        raise ConfigError(
            f"trainer.compile: there is no C++ compiler {compiler} here; install one, name another "
            f"in CXX, or {LEAVE}"
        )


def _keep_in_cache() -> None:
    """Tell torch where to keep what it compiles, and to start no processes for so few kernels."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "flowtrain" / "compiled"
    if CACHE not in os.environ:
        with suppress(OSError):  # no home to write to: torch's own choice stands
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[CACHE] = str(folder)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
