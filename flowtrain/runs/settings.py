"""The settings of a run that goes on: its own, and what is asked for where they may change."""

from typing import Any

from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, absolute, marked
from flowtrain.errors import CheckpointError, ConfigError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.migrate import load_config
from flowtrain.runs.result import read_result


def held_config(folder: RunFolder) -> Config:
    """Return the config of the run, or of the replicas, that a folder holds.

    Raises:
        CheckpointError: its result.json is lost or damaged.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.runs.migrate import saved_config
    >>> from flowtrain.runs.result import write_result
    >>> config = open_run(run_folder).config
    >>> write_result(RunFolder(tmp_path), status="running", config=saved_config(config))
    >>> held_config(RunFolder(tmp_path)) == config
    True
    """
    try:
        return load_config(read_result(folder)["config"])
    except (LookupError, TypeError, ValueError, AttributeError, ConfigError) as error:
        one = f"; each replica goes on by itself: resume={folder.replica(0).path}"
        raise CheckpointError(
            f"{folder.result} does not say what {folder.path} holds{one if folder.replicas else ''}"
        ) from error


def reconcile(saved: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return a run's own config with the settings asked for, where they may change.

    Raises:
        ConfigError: a setting contradicts the run's; every one is named with both values.

    >>> from flowtrain.runs.load import open_run
    >>> saved = open_run(run_folder).config.model_dump()
    >>> reconcile(saved, {"trainer": {"max_steps": 12}})["trainer"]["max_steps"]
    12
    """
    refused: list[str] = []
    free = set(marked(Config, Mark.RESUMABLE))
    asked = _settled_as(saved, _absolute(asked))
    merged: dict[str, Any] = merge(saved, asked, "", free, refused)
    if refused:
        advice = (
            "leave these out to go on with it; for a run that has them choose another "
            "hydra.run.dir, without resume"
        )
        raise ConfigError("\n".join(["this folder holds another run:", *refused, advice]))
    return merged


def merge(saved: Any, asked: Any, path: str, free: set[str], refused: list[str]) -> Any:
    """Return saved settings with those asked for, where they may change.

    Args:
        saved: a config, or a part of it.
        asked: settings of that part.
        path: of the part: the keys that lead to it.
        free: keys of settings that may change.
        refused: gets a line for each other setting that differs, with both values.

    >>> refused: list[str] = []
    >>> merge({"seed": 0, "grid": 64}, {"seed": 3, "grid": 32}, "", {"grid"}, refused)
    {'seed': 0, 'grid': 32}
    >>> refused
    ['seed: the run has 0, this asks for 3']
    """
    if isinstance(saved, dict) and isinstance(asked, dict):
        if saved.get("name") != asked.get("name", saved.get("name")):
            if path in free:
                return asked
            path, saved, asked = f"{path}.name", saved["name"], asked["name"]
        else:
            return {
                key: merge(
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


def _absolute(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked for, its paths as a checked config has them."""
    for key in marked(Config, Mark.PATH):
        group, name = key.split(".")
        if isinstance(path := asked.get(group, {}).get(name), str):
            asked = {**asked, group: {**asked[group], name: absolute(path)}}
    return asked


def _settled_as(saved: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked for, with what was settled for the run where that is left to it."""
    for key in marked(Config, Mark.SETTLED):
        group, name = key.split(".")
        if asked.get(group, {}).get(name) == "auto" and name in saved[group]:
            asked = {**asked, group: {**asked[group], name: saved[group][name]}}
    return asked
