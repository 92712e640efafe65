"""What a run takes over from an earlier one: all of its own, or another's weights."""

from pathlib import Path
from typing import Any

from flowtrain import checkpoint
from flowtrain.checkpoint import TrainState
from flowtrain.config import Config
from flowtrain.errors import ConfigError

# Settings of the run, not of the model, its data or the law of its steps.
MAY_CHANGE = {
    "trainer.device",
    "trainer.threads",
    "trainer.max_steps",
    "trainer.max_seconds",
    "trainer.patience",
    "trainer.max_failures",
    "trainer.log_every",
    "trainer.evaluate_every",
    "trainer.figures",
    "trainer.animation",
    "evaluation.grid",
    "evaluation.batch_size",
}

# Settings of a model that do not shape the function of its weights.
NO_SHAPE = {"model.divergence", "model.probes", "model.noise"}


def reconcile(saved: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return a run's own config with the settings asked for, where they may change.

    Raises:
        ConfigError: a setting contradicts the run's; every one is named with both values.
    """
    refused: list[str] = []
    merged: dict[str, Any] = _merge(saved, asked, "", MAY_CHANGE, refused)
    if refused:
        raise ConfigError("\n".join(["this folder holds another run:", *refused]))
    return merged


def warm_start(state: TrainState, config: Config) -> None:
    """Give a new run the weights and the whitening that the run `init_from` is judged by.

    Raises:
        ConfigError: its model differs; every difference is named with both values.
        CheckpointError: the folder holds no checkpoint, or it cannot be read.
    """
    folder = Path(str(config.init_from))
    saved = checkpoint.read(folder / "checkpoints" / "best.pt")
    refused: list[str] = []
    model = config.model.model_dump()
    _merge({"model": saved["config"]["model"]}, {"model": model}, "", NO_SHAPE, refused)
    if saved["dim"] != state.flow.dim:
        refused.append(f"data: the run has {saved['dim']} dimensions, this has {state.flow.dim}")
    if refused:
        raise ConfigError("\n".join([f"init_from: {folder} holds another model:", *refused]))
    for flow in (state.flow, state.measured):
        checkpoint.load_measured(flow, saved)


def _merge(saved: Any, asked: Any, path: str, free: set[str], refused: list[str]) -> Any:
    if isinstance(saved, dict) and isinstance(asked, dict):
        if saved.get("name") != asked.get("name", saved.get("name")):
            path, saved, asked = f"{path}.name", saved["name"], asked["name"]
        else:
            return {
                key: _merge(
                    saved.get(key),
                    asked.get(key, saved.get(key)),
                    f"{path}.{key}".lstrip("."),
                    free,
                    refused,
                )
                for key in {**saved, **asked}
            }
    if saved == asked or path in free:
        return asked
    refused.append(f"{path}: the run has {saved!r}, this asks for {asked!r}")
    return saved
