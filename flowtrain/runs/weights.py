"""A run's weights as one .safetensors file, which no reader needs to trust; docs/formats.md."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowtrain import __version__
from flowtrain.errors import CheckpointError, UserError
from flowtrain.files import writing
from flowtrain.runs.checkpoint import holds_flow
from flowtrain.runs.load import SavedRun
from flowtrain.runs.migrate import migrate_checkpoint, saved_config
from flowtrain.untrusted import is_plain

FORMAT = 1  # of what every export says of itself


def refuse_if_missing(*packages: str) -> None:
    """Refuse an export, or to read one, whose packages are not installed.

    Raises:
        UserError: with the command that installs them.

    >>> refuse_if_missing("json")
    """
    for package in packages:
        if find_spec(package) is None:
            raise UserError(f"exports need {package}: pip install 'flowtrain[export]'")


def about(saved: SavedRun) -> dict[str, Any]:
    """Return what every export says of itself, as JSON takes it.

    >>> from flowtrain.runs.load import open_run
    >>> told = about(open_run(run_folder))
    >>> told["format"], told["columns"], told["step"], told["config"]["model"]["name"]
    (1, ['x0', 'x1'], 6, 'realnvp')
    """
    return {
        "format": FORMAT,
        "flowtrain": __version__,
        "step": saved.step,
        "dim": saved.flow.dim,
        "columns": list(saved.columns),
        "grid": list(saved.grid),
        **({} if saved.condition is None else {"condition": saved.condition.state()}),
        "config": saved_config(saved.config),
    }


def save_weights(path: Path, saved: SavedRun) -> None:
    """Write the weights a run is judged by and its config; `flowtrain.load` reads them back.

    Raises:
        UserError: safetensors is not installed, or the file cannot be written.

    >>> from flowtrain import load
    >>> from flowtrain.runs.load import open_run
    >>> save_weights(tmp_path / "model.safetensors", open_run(run_folder))
    >>> x = torch.ones(1, 2)
    >>> load(tmp_path / "model.safetensors").log_prob(x) == load(run_folder).log_prob(x)
    tensor([True])
    """
    refuse_if_missing("safetensors")
    from safetensors.torch import save

    weights = {name: w.detach().cpu().contiguous() for name, w in saved.flow.state_dict().items()}
    with writing(path) as file:
        file.write(save(weights, {"flowtrain": json.dumps(about(saved))}))


def read_weights(path: Path) -> dict[str, Any]:
    """Return what `save_weights` wrote, in the shape of a checkpoint, turned into today's.

    Raises:
        CheckpointError: the file is damaged, not of flowtrain's, or of a newer version.
        UserError: safetensors is not installed.

    >>> from flowtrain.runs.load import open_run
    >>> save_weights(tmp_path / "model.safetensors", open_run(run_folder))
    >>> read_weights(tmp_path / "model.safetensors")["progress"]
    {'step': 6}
    """
    refuse_if_missing("safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})["flowtrain"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if is_plain(told["config"]):
            state = migrate_checkpoint(
                {
                    "config": told["config"],
                    "dim": told["dim"],
                    "model": weights,
                    "ema": None,
                    "columns": told.get("columns", []),
                    "grid": told.get("grid", []),
                    "condition": told.get("condition"),
                    "progress": {"step": told["step"]},
                }
            )
            if holds_flow(state):
                return state
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (SafetensorError, LookupError, TypeError, AttributeError, ValueError, RecursionError):
        pass  # as what holds no flow
    raise CheckpointError(f"{path} is damaged, or not written by flowrun export")
