"""What run folders say about their runs, without opening the weights."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from flowtrain import checkpoint as checkpoints
from flowtrain.errors import CheckpointError, UserError

OWN = ("model", "data", "seed")  # keys of the config that result.json holds itself
NEEDED = {"status", "metrics", "parameters", "seconds", *OWN}


@dataclass(frozen=True)
class RunRecord:
    """A run by what its folder records.

    Attributes:
        folder: of the run.
        status: completed, interrupted, failed, running, or what is wrong with result.json.
        result: the content of result.json; empty unless it is a run's.
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

        It is the last checkpoint's, else that of .hydra; empty where there is neither.
        """
        try:
            return _flatten(checkpoints.read(self.folder / "checkpoints" / "last.pt")["config"])
        except CheckpointError:
            record = self.folder / ".hydra" / "config.yaml"
            return _flatten(yaml.safe_load(record.read_text())) if record.is_file() else {}

    def value(self, key: str) -> Any:
        """Return what the run has for a dotted key of its config, None if it has no such key."""
        return self.result.get(key) if key in OWN else self.config.get(key)

    def history(self) -> list[dict[str, float | None]]:
        """Return the lines of metrics.jsonl; a line that is still being written is left out."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]


def find_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """Return the runs in and below folders, each once.

    Raises:
        UserError: a folder is not there, or none of them holds a run.
    """
    asked, found = list(folders), dict[Path, Path]()
    for folder in asked:
        if not folder.is_dir():
            raise UserError(
                f"{folder}: {'a file, no folder' if folder.exists() else 'no such folder'}"
            )
        results = [path.parent for path in folder.rglob("result.json")]
        # A job that failed before its training began left Hydra's record alone.
        begun = [path.parents[1] for path in folder.rglob(".hydra/config.yaml")]
        for run in sorted({*results, *begun}):
            found.setdefault(run.resolve(), run)
    if not found:
        raise UserError(f"no run below {', '.join(map(str, asked))}: no folder has a result.json")
    return [read_record(run) for run in found.values()]


def read_record(folder: Path) -> RunRecord:
    """Return what a run folder records."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return RunRecord(folder, "without a result.json", {})
    except ValueError:
        result = None
    if not isinstance(result, dict) or not result.keys() >= NEEDED:
        return RunRecord(folder, "with a result.json that is no run's", {})
    return RunRecord(folder, result["status"], result)


def _flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
            if "name" in value:
                flat[prefix + key] = value["name"]
        else:
            flat[prefix + key] = value
    return flat
