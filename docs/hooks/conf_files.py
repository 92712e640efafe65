"""The files of conf/, read for their words: defaults as written, and the comments behind them."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from flowtrain.config import CONF

# A default that steps back where another setting is given: ${flowtrain.unless:${.other},default}.
STEPS_BACK = re.compile(r"\$\{flowtrain\.unless:\$\{[^}]*\},([^,}]*)[^}]*\}")


@dataclass(frozen=True)
class Setting:
    """A key of a file of conf/: its value as written, and the comment behind it."""

    value: str
    comment: str


@dataclass(frozen=True)
class Option:
    """A file of conf/: what it says of itself, what else it chooses, and its settings."""

    path: Path

    @property
    def name(self) -> str:
        """What follows `group=` on the command line."""
        return self.path.stem

    @cached_property
    def text(self) -> str:
        """The file."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def node(self) -> Any:
        """The file's YAML, which knows the lines that its keys stand on."""
        return yaml.compose(self.text, Loader=yaml.SafeLoader)

    @property
    def summary(self) -> str:
        """The comment at the head of the file."""
        head = re.match(r"(#.*\n)*", self.text)
        assert head is not None
        lines = [line.lstrip("# ") for line in head[0].splitlines() if "@package" not in line]
        return " ".join(lines)

    @property
    def parents(self) -> list["Option"]:
        """The options of its group whose settings it takes over."""
        entries = yaml.safe_load(self.text).get("defaults", [])
        plain = [entry for entry in entries if isinstance(entry, str) and entry != "_self_"]
        return [Option(self.path.with_stem(name)) for name in plain]

    @property
    def chooses(self) -> list[str]:
        """What it chooses of other groups, as one would type it."""
        entries = yaml.safe_load(self.text).get("defaults", [])
        chosen = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
        return [
            f"{_typed(key)}={value}"
            for key, value in chosen
            if key.startswith("override /") and "hydra" not in key
        ]

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """Its settings by dotted key, with those that it takes over."""
        found: dict[str, Setting] = {}
        for parent in self.parents:
            found |= parent.settings
        return found | dict(self._own(self.node, ""))

    def _own(self, node: Any, prefix: str) -> Iterator[tuple[str, Setting]]:
        for key, value in node.value:
            if key.value == "defaults" or (key.value == "hydra" and not self.of_hydra):
                continue
            if isinstance(value, yaml.MappingNode) and value.value:
                yield from self._own(value, f"{prefix}{key.value}.")
            else:
                line = self.text.splitlines()[key.start_mark.line]
                comment = line.partition(" # ")[2].strip()
                yield prefix + key.value, Setting(self._written(value), comment)

    @property
    def of_hydra(self) -> bool:
        """Whether it sets what Hydra reads, as launchers do."""
        return self.path.parent.name == "launcher"

    def _written(self, node: Any) -> str:
        written = self.text[node.start_mark.index : node.end_mark.index].strip()
        if "\n" in written:
            value = yaml.constructor.SafeConstructor().construct_object(node, deep=True)
            written = yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize).strip()
        return STEPS_BACK.sub(r"\1", written)


def _typed(override: str) -> str:
    """Return how one types a key of a defaults list.

    >>> _typed("override /solver@_global_.evaluation.solver"), _typed("override /data")
    ('solver@evaluation.solver', 'data')
    """
    group, _, package = override.removeprefix("override /").partition("@")
    package = package.removeprefix("_global_.")
    return group if package in ("", group) else f"{group}@{package}"


def options_of(group: str) -> list[Option]:
    """Return the options of a group, its default first."""
    found = [Option(path) for path in sorted((CONF / group).glob("*.yaml"))]
    chosen = {
        key: value
        for entry in yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
        if isinstance(entry, dict)
        for key, value in entry.items()
    }
    return sorted(found, key=lambda option: option.name != chosen.get(group))
