"""What a run that goes on may change, and the refusal of what it may not."""

from typing import Any

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


def reconcile(saved: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return a run's own config with the settings asked for, where they may change.

    Raises:
        ConfigError: a setting contradicts the run's; every one is named with both values.
    """
    refused: list[str] = []
    merged: dict[str, Any] = _merge(saved, asked, "", refused)
    if refused:
        raise ConfigError("\n".join(["this folder holds another run:", *refused]))
    return merged


def _merge(saved: Any, asked: Any, path: str, refused: list[str]) -> Any:
    if isinstance(saved, dict) and isinstance(asked, dict):
        if saved.get("name") != asked.get("name", saved.get("name")):
            path, saved, asked = f"{path}.name", saved["name"], asked["name"]
        else:
            return {
                key: _merge(
                    saved.get(key),
                    asked.get(key, saved.get(key)),
                    f"{path}.{key}".lstrip("."),
                    refused,
                )
                for key in {**saved, **asked}
            }
    if saved == asked or path in MAY_CHANGE:
        return asked
    refused.append(f"{path}: the run has {saved!r}, this asks for {asked!r}")
    return saved
