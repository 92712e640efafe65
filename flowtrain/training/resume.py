"""What a run takes over from another one, its weights; and code of a user's, if it is trusted."""

from pathlib import Path
from typing import Any

from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, marked
from flowtrain.errors import ConfigError
from flowtrain.runs import checkpoint
from flowtrain.runs.existing import existing_checkpoint
from flowtrain.runs.settings import merge
from flowtrain.training.state import TrainState


def warm_start(state: TrainState, config: Config) -> None:
    """Give a new run the weights and the whitening that the run `init_from` is judged by.

    Raises:
        ConfigError: its model differs; every difference is named with both values.
        CheckpointError: the folder holds no checkpoint, or it cannot be read.
    """
    folder = Path(str(config.init_from))
    saved = checkpoint.read(existing_checkpoint(folder, "best"))
    refused: list[str] = []
    model = config.model.model_dump()
    free = set(marked(Config, Mark.SHAPELESS))
    merge({"model": saved["config"]["model"]}, {"model": model}, "", free, refused)
    if saved["dim"] != state.flow.dim:
        refused.append(f"data: the run has {saved['dim']} dimensions, this has {state.flow.dim}")
    if refused:
        raise ConfigError("\n".join([f"init_from: {folder} holds another model:", *refused]))
    for flow in (state.flow, state.eval_flow):
        checkpoint.load_eval_weights(flow, saved)


def refuse_unnamed_code(config: Config, asked: dict[str, Any], folder: Path) -> None:
    """Refuse to run code that only the folder of a resumed run names.

    Args:
        config: of the run.
        asked: what the user typed: code that is named there is trusted.
        folder: of the run.

    Raises:
        ConfigError: a module is named by the folder alone.
    """
    for key, target in config.own_code.items():
        group, name = key.split(".")
        if asked.get(group, {}).get(name) != target:
            raise ConfigError(
                f"{folder}: this run uses code of its user's own, {key}={target}: if you trust "
                "that code, add trust_code=true"
            )
