"""Checkpoints: written whole or not at all, read without running code, kept as plain containers."""

import io
import logging
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import nn

from flowtrain.config.memory import memory_bytes
from flowtrain.errors import CheckpointError, UserError
from flowtrain.files import replacing
from flowtrain.flows.flow import Flow
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.migrate import migrate_checkpoint
from flowtrain.untrusted import is_plain, open_regular

log = logging.getLogger("flowtrain")


FORMAT = 1  # of the file around the state; without one it is release 0.1's
SEAL = re.compile(rb"flowtrain checkpoint (\d+) sha256 ([0-9a-f]{64})\Z")
NO_COMMENT = b"\0\0"  # the length of its comment, which ends a zip file


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically. A failure keeps the old one.

    The file is torch's zip archive, whose comment holds the format's version and the SHA-256 of
    all that stands before it.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.runs.migrate import saved_config
    >>> run, file = open_run(run_folder), tmp_path / "best.pt"
    >>> whole = torch.load(run_folder / "checkpoints" / "best.pt", weights_only=True)
    >>> save(file, {**whole, "config": saved_config(run.config), "progress": {"step": 6}})
    >>> read(file)["progress"]
    {'step': 6}
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()[: -len(NO_COMMENT)]
    seal = f"flowtrain checkpoint {FORMAT} sha256 {sha256(content).hexdigest()}".encode()
    try:
        with replacing(path) as file:
            file.write(content)
            file.write(len(seal).to_bytes(2, "little") + seal)
    except OSError as error:
        kept = "; the one before it is kept" if path.exists() else ""
        reason = f"{error.strerror or error}{kept}"
        raise CheckpointError(f"cannot write the checkpoint {path}: {reason}") from error


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, an older one turned into today's; nothing in it can run code.

    Raises:
        CheckpointError: the file is missing, empty, truncated, damaged, no checkpoint of
            flowtrain's, of a newer version, or lies outside the folder of its run.

    >>> state = read(run_folder / "checkpoints" / "best.pt")
    >>> state["config"]["model"]["name"], state["progress"]["step"]
    ('realnvp', 6)
    """
    try:
        with open_regular(path, inside=path.parents[1], limit=memory_bytes()) as file:
            content = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except UserError as error:
        raise CheckpointError(str(error)) from None
    try:
        return _decoded(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None


def read_newest(folder: RunFolder) -> dict[str, Any] | None:
    """Return the last checkpoint of a run; where that is damaged or lost, the best one.

    Returns None where there is neither.

    Raises:
        CheckpointError: what is there cannot be read.

    >>> read_newest(RunFolder(run_folder))["progress"]["step"]
    6
    >>> read_newest(RunFolder(tmp_path)) is None
    True
    """
    last, best = (folder.checkpoint(name) for name in ("last", "best"))
    if not (os.path.lexists(last) or os.path.lexists(best)):
        return None
    try:
        return read(last)
    except CheckpointError as error:
        try:
            state = read(best)
        except CheckpointError:
            raise error from None
        log.warning("%s: going on from %s, of step %d", error, best, state["progress"]["step"])
        return state


def _decoded(content: bytes) -> dict[str, Any]:
    """Return the state that the bytes of a file hold.

    Raises:
        CheckpointError: they hold none; without the file's name.
    """
    if not content:
        raise CheckpointError("is empty")
    seal = SEAL.search(content, max(0, len(content) - 200))
    if seal:
        if int(seal[1]) > FORMAT:
            raise CheckpointError(
                f"was written by a newer flowtrain (checkpoint format {int(seal[1])}; this one "
                f"reads up to {FORMAT}): upgrade flowtrain"
            )
        content = content[: seal.start() - len(NO_COMMENT)]
        if sha256(content).hexdigest().encode() != seal[2]:
            raise CheckpointError("is damaged: it is not what was written, by its checksum")
        content += NO_COMMENT
    # Without a seal nothing may follow the archive's last record, of 22 bytes: half a seal, say.
    state = _unpacked(content) if content[-22:-18] == b"PK\5\6" else None
    if state is None:
        raise CheckpointError("is truncated, damaged or no checkpoint of flowtrain's")
    try:
        state = migrate_checkpoint(state)
    except CheckpointError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError):  # the keys, but not what they hold
        raise CheckpointError("is no checkpoint of flowtrain's") from None
    if not (holds_flow(state) and _goes_on(state)):
        raise CheckpointError(
            "is no checkpoint of flowtrain's: a part is missing or of another type"
        )
    return state


def _unpacked(content: bytes) -> dict[str, Any] | None:
    """Return the dict in torch's archive, None where there is none; nothing in it can run code."""
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            # Nothing is compressed or counts twice: no archive unfolds to more than it is.
            stored = all(member.compress_type == ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > len(content):
                return None
            if archive.testzip() is not None:  # torch does not look at the checksums
                return None
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen types on foreign bytes
        return None
    known = isinstance(state, dict) and {"config", "model", "progress"} <= state.keys()
    return state if known and is_plain(state["config"]) and is_plain(state["progress"]) else None


def holds_flow(state: dict[str, Any]) -> bool:
    """Say whether a state has all that a flow is restored from, each part of its type.

    Values are checked where they go.

    >>> state = read(run_folder / "checkpoints" / "best.pt")
    >>> holds_flow(state), holds_flow({**state, "dim": "2"})
    (True, False)
    """
    dim, columns = state.get("dim"), state.get("columns", [])
    return (
        type(dim) is int
        and 0 < dim < 2**31
        and _are_weights(state["model"])
        and (state.get("ema", 0) is None or _are_weights(state.get("ema")))
        and isinstance(columns, list)
        and all(isinstance(name, str) for name in columns)
        and isinstance(state.get("table"), str | None)
        and (state.get("condition") is None or is_plain(state["condition"]))
        and isinstance(state["progress"], dict)
        and type(state["progress"].get("step")) is int
    )


def _goes_on(state: dict[str, Any]) -> bool:
    """Say whether a state has what its training goes on from."""
    generator = state.get("generator")
    return (
        isinstance(state.get("optimizer"), dict)
        and isinstance(generator, torch.Tensor)
        and generator.dtype == torch.uint8
    )


def _are_weights(weights: Any) -> bool:
    return isinstance(weights, dict) and all(
        isinstance(key, str)
        and type(value) is torch.Tensor
        and value.layout == torch.strided
        and value.device.type == "cpu"
        for key, value in weights.items()
    )


def load_weights(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load the state of a module, all of it or nothing.

    Raises:
        CheckpointError: a name, shape or type differs, or a number is NaN or infinite.

    >>> layer = nn.Linear(2, 1)
    >>> load_weights(layer, {"weight": torch.zeros(1, 2), "bias": torch.zeros(2)})
    Traceback (most recent call last):
        ...
    flowtrain.errors.CheckpointError: the weights do not fit the model: bias is (2,), not (1,)
    """
    own = module.state_dict()
    problems = [f"{key} is missing" for key in own.keys() - weights.keys()]
    problems += [f"{key} is unknown" for key in weights.keys() - own.keys()]
    for key in own.keys() & weights.keys():
        found, wanted = weights[key], own[key]
        if found.shape != wanted.shape:
            problems.append(f"{key} is {(*found.shape,)}, not {(*wanted.shape,)}")
        elif found.dtype != wanted.dtype:
            problems.append(f"{key} is of {found.dtype}, not {wanted.dtype}")
        elif not torch.isfinite(found).all():
            problems.append(f"{key} has numbers that are NaN or infinite")
    if problems:
        more = f", and {len(problems) - 1} more" * (len(problems) > 1)
        raise CheckpointError(f"the weights do not fit the model: {min(problems)}{more}")
    module.load_state_dict(weights)


def load_eval_weights(flow: Flow, state: dict[str, Any]) -> None:
    """Load the weights that evaluation uses, averaged ones where the run kept an average.

    Args:
        flow: of the run's config.
        state: as `read` returns it.

    Raises:
        CheckpointError: the weights do not fit the flow.

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
    load_weights(flow, weights)
