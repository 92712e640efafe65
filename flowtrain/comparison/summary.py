"""A run by what its folder records, without its weights: status, metrics, config, history."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flowtrain.config.section import dotted
from flowtrain.errors import CheckpointError, UserError
from flowtrain.files import check_folder
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.migrate import SCHEMA, migrate
from flowtrain.runs.result import read_history, read_result
from flowtrain.untrusted import is_plain, read_yaml

OWN = ("model", "data", "seed")  # keys of the config that result.json holds itself
OF_TABLES = {"data.path", "data.rows"}  # what may tell the tables of runs apart
NEEDED = {"status", "metrics", "parameters", "seconds", *OWN}


@dataclass(frozen=True)
class RunSummary:
    """What a run folder records.

    Attributes:
        folder: of the run.
        status: completed, interrupted, failed, running, or what is wrong with result.json.
        result: the content of result.json; empty unless it is a run's.

    >>> run = summarise(run_folder)
    >>> run.status, run.value("model"), run.value("model.couplings"), len(run.history()) > 1
    ('completed', 'realnvp', 2, True)
    """

    folder: Path
    status: str
    result: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """The last metrics, by tag; what is not a number is left out."""
        found = self.result.get("metrics", {})
        return {tag: v for tag, v in found.items() if v is not None and not math.isnan(v)}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's config, flat by dotted key; a group's own key holds its name.

        A table's `data.rows` is the fingerprint of what was read from it, where it is recorded.
        It is that of result.json. A run of a release that did not write it there has it in its
        last checkpoint, and a job that never began in .hydra; empty where there is none.
        """
        config = self.result.get("config") or _config_elsewhere(RunFolder(self.folder))
        try:
            flat = dotted(migrate(config)) if config else {}
        except (CheckpointError, LookupError, TypeError, ValueError, AttributeError):
            flat = {}  # newer than this version, or no config
        names = {key.removesuffix(".name"): v for key, v in flat.items() if key.endswith(".name")}
        if "table" in self.result:  # a fingerprint, of which this much tells any two apart
            names["data.rows"] = self.result["table"][:12]
        return flat | names

    def value(self, key: str) -> Any:
        """Return what the run has for a dotted key of its config, None if it has no such key.

        The data of a table are named by its file.
        """
        if key == "data" and isinstance(path := self.config.get("data.path"), str):
            return Path(path).stem
        return self.result.get(key) if key in OWN else self.config.get(key)

    @cached_property
    def data_settings(self) -> dict[str, Any]:
        """The settings that tell the run's data from others, by dotted key.

        They are those of `data` and, where rows were split at random, those of `splits`. Which
        conditions are categories is a choice of the model: the law that is learned is the same.
        """
        groups = ("data.", "splits.") if self.config.get("splits") == "random" else ("data.",)
        found = {key: value for key, value in self.config.items() if key.startswith(groups)}
        return {key: value for key, value in found.items() if key != "data.categorical"}

    def history(self) -> list[dict[str, float | None]]:
        """Return the lines of metrics.jsonl that are whole."""
        return read_history(RunFolder(self.folder))


def untelling(runs: Sequence[RunSummary]) -> set[str]:
    """Return the keys by which the tables of some runs are not to be told apart.

    They go by their rows, wherever these were read from, if every run has recorded them; else by
    their paths. Rows say nothing more where other columns were chosen of them.

    >>> sorted(untelling([summarise(run_folder)]))  # no table at all
    ['data.path', 'data.rows']
    """
    if any("data.path" in run.config and "data.rows" not in run.config for run in runs):
        return {"data.rows"}
    found: dict[Any, set[Any]] = {}
    for run in runs:
        chosen = {key: v for key, v in run.data_settings.items() if key not in OF_TABLES}
        found.setdefault(repr(sorted(chosen.items())), set()).add(run.config.get("data.rows"))
    alike = all(len(rows) == 1 for rows in found.values())
    return OF_TABLES if alike else {"data.path"}


def find_runs(folders: Iterable[Path]) -> list[RunSummary]:
    """Return the runs in and below folders, each once.

    Raises:
        UserError: a folder is not there, or none of them holds a run.

    >>> [run.value("model") for run in find_runs([run_folder, ffjord_folder])]
    ['realnvp', 'ffjord']
    """
    asked, found = list(folders), dict[Path, Path]()
    for folder in asked:
        check_folder(folder)
        results = [path.parent for path in folder.rglob("result.json")]
        # A job that failed before its training began left Hydra's record alone.
        begun = [path.parents[1] for path in folder.rglob(".hydra/config.yaml")]
        # Replicas are runs of their own, and the folder that holds them is none.
        for run in sorted(each for each in {*results, *begun} if not RunFolder(each).replicas):
            found.setdefault(run.resolve(), run)
    if not found:
        raise UserError(f"no run below {', '.join(map(str, asked))}: no folder has a result.json")
    return [summarise(run) for run in found.values()]


def summarise(folder: Path) -> RunSummary:
    """Return what a run folder records.

    >>> round(summarise(run_folder).metrics["kl/test"], 4)
    0.9931
    >>> summarise(tmp_path).status
    'without a result.json'
    """
    result = read_result(RunFolder(folder))
    if result.keys() >= NEEDED:
        return RunSummary(folder, result["status"], result)
    there = os.path.lexists(RunFolder(folder).result)
    wrong = "with a result.json that is no run's" if there else "without a result.json"
    return RunSummary(folder, wrong, {})


def _config_elsewhere(folder: RunFolder) -> dict[str, Any]:
    if folder.checkpoint("last").is_file():
        from flowtrain.runs import checkpoint  # torch, which no newer run needs here

        try:
            config: dict[str, Any] = checkpoint.read(folder.checkpoint("last"))["config"]
            return {"schema": SCHEMA, **config}
        except CheckpointError:
            pass
    try:
        composed = read_yaml(folder.composed, inside=folder.path)
    except (FileNotFoundError, UserError):
        return {}
    if not (isinstance(composed, dict) and is_plain(composed)):
        return {}
    return composed if "pools" in composed else {"schema": SCHEMA, **composed}
