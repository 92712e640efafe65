"""What a run takes over from an earlier one: all of its own when resumed, or another's weights."""

from pathlib import Path
from typing import Any

from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, marked
from flowtrain.errors import ConfigError
from flowtrain.runs import checkpoint
from flowtrain.runs.existing import existing_checkpoint
from flowtrain.training.state import TrainState

PATHS = ("data.path", "objective.teacher")  # typed from any folder


def reconcile(saved: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return a run's own config with the settings asked for, where they may change.

    Raises:
        ConfigError: a setting contradicts the run's; every one is named with both values.
    """
    refused: list[str] = []
    free = set(marked(Config, Mark.RESUMABLE))
    asked = _settled_as(saved, _absolute(asked))
    merged: dict[str, Any] = _merge(saved, asked, "", free, refused)
    if refused:
        advice = (
            "leave these out to go on with it; for a run that has them choose another "
            "hydra.run.dir, without resume"
        )
        raise ConfigError("\n".join(["this folder holds another run:", *refused, advice]))
    return merged


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
    _merge({"model": saved["config"]["model"]}, {"model": model}, "", free, refused)
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


def _absolute(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked for, its paths as a checked config has them."""
    for key in PATHS:
        group, name = key.split(".")
        if isinstance(path := asked.get(group, {}).get(name), str):
            asked = {
                **asked,
                group: {**asked[group], name: str(Path(path).expanduser().absolute())},
            }
    return asked


def _settled_as(saved: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked for, with what was settled for the run where that is left to it."""
    for key in marked(Config, Mark.SETTLED):
        group, name = key.split(".")
        if asked.get(group, {}).get(name) == "auto" and name in saved[group]:
            asked = {**asked, group: {**asked[group], name: saved[group][name]}}
    return asked


def _merge(saved: Any, asked: Any, path: str, free: set[str], refused: list[str]) -> Any:
    if isinstance(saved, dict) and isinstance(asked, dict):
        if saved.get("name") != asked.get("name", saved.get("name")):
            if path in free:
                return asked
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
