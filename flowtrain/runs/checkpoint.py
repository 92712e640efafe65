"""Checkpoints: written whole or not at all, read without running code, kept as plain containers."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from flowtrain.errors import CheckpointError
from flowtrain.files import replacing
from flowtrain.flows.flow import Flow
from flowtrain.runs.migrate import migrate_checkpoint


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically. A failure keeps the old one.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.runs.migrate import saved_config
    >>> run, file = open_run(run_folder), tmp_path / "best.pt"
    >>> weights = run.flow.state_dict()
    >>> save(file, {"config": saved_config(run.config), "model": weights, "progress": {"step": 6}})
    >>> read(file)["progress"]
    {'step': 6}
    """
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        kept = "; the one before it is kept" if path.exists() else ""
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}{kept}") from error


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, an older one turned into today's; nothing in it can run code.

    Raises:
        CheckpointError: the file is missing, truncated, no checkpoint of flowtrain's, or of a
            newer version.

    >>> state = read(run_folder / "checkpoints" / "best.pt")
    >>> state["config"]["model"]["name"], state["progress"]["step"]
    ('realnvp', 6)
    """
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    except Exception:  # torch raises a dozen types on foreign bytes
        state = None
    if not isinstance(state, dict) or not {"config", "model", "progress"} <= state.keys():
        raise CheckpointError(f"{path} is truncated, damaged or no checkpoint of flowtrain's")
    try:
        return migrate_checkpoint(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (LookupError, TypeError, AttributeError):  # the right keys, but not what they hold
        raise CheckpointError(
            f"{path} is truncated, damaged or no checkpoint of flowtrain's"
        ) from None


def load_eval_weights(flow: Flow, state: dict[str, Any]) -> None:
    """Load the weights that evaluation uses, averaged ones where the run kept an average.

    Args:
        flow: of the run's config.
        state: as `read` returns it.

    >>> from flowtrain.build import blank_whitening, build_flow
    >>> from flowtrain.runs.load import open_run
    >>> run, file = open_run(run_folder), run_folder / "checkpoints" / "best.pt"
    >>> flow = build_flow(run.config, blank_whitening(run.config, 2), seed=0)
    >>> load_eval_weights(flow, read(file))
    >>> torch.equal(flow.log_prob(torch.zeros(1, 2)), run.flow.log_prob(torch.zeros(1, 2)))
    True
    """
    weights, prefix = state["model"], "module."
    if state["ema"] is not None:
        averaged = state["ema"].items()
        weights = {key.removeprefix(prefix): w for key, w in averaged if key.startswith(prefix)}
    flow.load_state_dict(weights)
