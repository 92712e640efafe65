"""Runs outlive the schema: what an older version saved, turned into today's.

A saved config says which version of the schema it follows. Whoever changes a key of the config,
of a checkpoint or the name of a weight raises `SCHEMA`, adds a step from the version before, and
keeps a small run folder of that version in tests/runs/.
"""

from typing import Any

from flowtrain.config.data import Known, Rows
from flowtrain.config.objective import FlowMatchingThenLikelihood
from flowtrain.config.schema import Config, validate
from flowtrain.config.section import names, options
from flowtrain.errors import CheckpointError

SCHEMA = 8


def saved_config(config: Config) -> dict[str, Any]:
    """Return a config as it is saved: plain containers, with the version of their schema.

    >>> from flowtrain.runs.load import open_run
    >>> saved = saved_config(open_run(run_folder).config)
    >>> list(saved)[0], saved["data"]["name"]
    ('schema', 'pinwheel')
    """
    return {"schema": SCHEMA, **config.model_dump()}


def migrate(saved: dict[str, Any]) -> dict[str, Any]:
    """Turn a saved config into today's, without its version. New keys get their old meaning.

    Raises:
        CheckpointError: a newer version of flowtrain saved it.

    >>> pools = {"name": "split", "validation": 0.1, "test": 0.1, "seed": 0}
    >>> migrate({"seed": 3, "pools": pools, "model": {"name": "affine"}})["splits"]
    {'name': 'random', 'test': 0.1, 'seed': 0, 'val': 0.1}
    """
    config = {key: value for key, value in saved.items() if key != "schema"}
    version = saved.get("schema", 0)
    _refuse_newer(version)
    if version < 1:
        config = _from_0(config)
    if version < 2:
        config = _from_1(config)
    if version < 3:
        config = _from_2(config)
    if version < 4 and "trainer" in config:  # steps were never compiled
        config = {**config, "trainer": {"compile": False, **config["trainer"]}}
    if version < 5 and "trainer" in config:  # a run was of one seed
        config = {**config, "trainer": {"replicas": 1, **config["trainer"]}}
    if version < 6 and config.get("data", {}).get("name") == "table":  # values told what is one
        config = {**config, "data": {"categorical": None, **config["data"]}}
    if version < 7 and "trainer" in config:  # nor recorded as a graph
        config = {**config, "trainer": {"capture": False, **config["trainer"]}}
    if version < 8 and config.get("data", {}).get("name") == "table":  # no row was left out
        config = {**config, "data": {"missing": "refuse", **config["data"]}}
    return config


def load_config(saved: dict[str, Any]) -> Config:
    """Return a saved config, migrated and checked.

    Raises:
        CheckpointError: a newer version of flowtrain saved it.
        ConfigError: it is no config.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config
    >>> load_config(saved_config(config)) == config
    True
    """
    return validate(migrate(saved))


def migrate_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """Turn the content of a checkpoint into today's; its config is that of `migrate`.

    Raises:
        CheckpointError: a newer version of flowtrain saved it.

    >>> old = torch.load(run_folder / "checkpoints" / "best.pt", weights_only=True)
    >>> "splits" in old["config"], "splits" in migrate_checkpoint(old)["config"]
    (False, True)
    """
    if state["config"].get("schema", 0) < 1:
        progress = dict(state["progress"])
        progress["last_eval_step"] = progress.pop("measured")
        state = {
            **state,
            "model": _standardize_apart(state["model"]),
            "ema": state["ema"] and _standardize_apart(state["ema"]),
            "progress": progress,
        }
    return {**state, "config": migrate(state["config"])}


def _refuse_newer(version: Any) -> None:
    if not isinstance(version, int) or version > SCHEMA:
        raise CheckpointError(
            f"this run was written by a newer flowtrain (schema {version}; this one reads up to "
            f"{SCHEMA}): upgrade flowtrain"
        )


def _from_0(config: dict[str, Any]) -> dict[str, Any]:
    """Release 0.1: pools, and what a coupling does in a group of its own."""
    config = {"trust_code": False, **config}
    pools = dict(config.pop("pools"))
    pools["name"] = {"drawn": "sampled", "split": "random"}[pools["name"]]
    pools["val"] = pools.pop("validation")
    model = dict(config["model"])
    elementwise = model.pop("elementwise", {})
    model |= {key: value for key, value in elementwise.items() if key != "name"}
    if model["name"] == "glow":
        del model["mixing"]  # it was "lu", the only one that glow has
    return {**config, "splits": pools, "model": model}


def _from_1(config: dict[str, Any]) -> dict[str, Any]:
    """0.2 in the making: a run always wrote for TensorBoard; `switch` was a fraction of its steps.

    Columns were whitened apart and figures drawn at every evaluation; fields had no waves, and flow
    matching no posterior means.
    """
    config = {"logger": {"name": "tensorboard"}, **config}
    if "model" in config:
        config["model"] = {"whitening": "columns", **config["model"]}
    if config.get("splits", {}).get("name") == "random" and "data" in config:
        config["data"] = {"dequantize": False, **config["data"]}
    if "trainer" in config:
        config["trainer"] = {"draw_every": 1, **config["trainer"]}
    if config.get("model", {}).get("name") == "ffjord":
        config["model"] = {"features": None, "scale": None, **config["model"]}
    objective = dict(config.get("objective", {}))
    if "times" in objective:
        config["objective"] = objective | {"targets": "sample", "reference": None}
    if "switch" in objective:
        steps, cost = objective["switch"], FlowMatchingThenLikelihood.COST
        config["objective"]["switch"] = steps / (steps + cost * (1 - steps))
    return config


def _from_2(config: dict[str, Any]) -> dict[str, Any]:
    """0.2 in the making: nothing was given of a point, bases were normal, no target annealed."""
    nothing = {"condition": None}
    for group, given in ((Known, {**nothing, "interval": None}), (Rows, nothing)):
        known = {name for section in options(group) for name in names(section)}
        if config.get("data", {}).get("name") in known:
            config = {**config, "data": {**given, **config["data"]}}
    if "model" in config:
        config = {**config, "model": {"base": "normal", "components": None, **config["model"]}}
    if config.get("objective", {}).get("name") == "reverse_kl":
        config = {**config, "objective": {"annealing": 0.0, **config["objective"]}}
    return config


def _standardize_apart(weights: dict[str, Any]) -> dict[str, Any]:
    """Release 0.1 had the whitening as the last of the transforms."""
    renamed = {}
    for key, value in weights.items():
        *parents, name = key.split(".")
        if name in ("mean", "std") and len(parents) >= 2 and parents[-2] == "transforms":
            key = ".".join([*parents[:-2], "standardize", name])
        renamed[key] = value
    return renamed
