"""A trained flow back from its run folder: no config given, no code of the folder's own run."""

from pathlib import Path

import torch

from flowtrain.build import build_flow
from flowtrain.checkpoint import load_measured, read
from flowtrain.config import validate
from flowtrain.flows import Flow


def load(run_folder: str | Path, checkpoint: str = "best") -> Flow:
    """Return the flow of a run on the CPU, in evaluation mode, with the weights it is judged by.

    Args:
        run_folder: the folder of a run, finished or not.
        checkpoint: "best" (by validation NLL) or "last".

    Raises:
        CheckpointError: the folder holds no such checkpoint, or it cannot be read.
    """
    state = read(Path(run_folder) / "checkpoints" / f"{checkpoint}.pt")
    blank = torch.ones(state["dim"])  # the standardisation is among the loaded buffers
    flow = build_flow(validate(state["config"]), blank, blank, seed=0)
    load_measured(flow, state)
    return flow.eval()
