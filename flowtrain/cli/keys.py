"""Keys and options of the config, read from the files of conf/ without Hydra: in a moment."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from flowtrain.config import CONF

INNER = ("experiment_on", "model_on")  # groups that other groups choose, and no user


def several_runs(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for a sweep.

    >>> several_runs(["-m", "seed=0,1"]), several_runs(["seed=0"])
    (True, False)
    """
    return not {"-m", "--multirun"}.isdisjoint(arguments)


def known_keys(arguments: Sequence[str]) -> list[str]:
    """Return the keys of the config: of the options that the arguments choose, else of them all."""
    chosen = dict(arg.split("=", 1) for arg in arguments if re.fullmatch(r"[\w@.]+=\w+", arg))
    keys = {key for key in _settings(CONF / "config.yaml") if key != "hydra"}
    for folder in filter(Path.is_dir, CONF.iterdir()):
        group = folder.name
        places = {group: group}
        if group == "solver":
            places["solver@evaluation.solver"] = "evaluation.solver"
        for place, prefix in places.items():
            files = [folder / f"{chosen[place]}.yaml"] if place in chosen else folder.glob("*.yaml")
            keys |= {prefix, *(f"{prefix}.{key}" for file in files for key in keys_of(file))}
    return sorted(keys)


def keys_of(file: Path) -> set[str]:
    """Return the keys of an option, and of those of its group that it starts from."""
    settings = _settings(file)
    bases = [base for base in settings.pop("defaults", []) if isinstance(base, str)]
    return {*settings, *(key for base in bases for key in keys_of(file.with_name(f"{base}.yaml")))}


def options_of(group: str, roots: Iterable[Path] = (CONF,)) -> list[str]:
    """Return the options of a group; none if there is no such group.

    >>> options_of("launcher")
    ['basic', 'joblib', 'slurm']
    """
    return sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")})


def switches(key: str) -> list[str]:
    """Return true and false for a key that one of the group's options has as a switch.

    >>> switches("trainer.figures"), switches("trainer.max_steps")
    (['false', 'true'], [])
    """
    group, _, name = key.partition(".")
    files = (CONF / group).glob("*.yaml") if name else [CONF / "config.yaml"]
    defaults = [_settings(file).get(name or key) for file in files]
    return ["false", "true"] if any(isinstance(each, bool) for each in defaults) else []


def _settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C where there is one
    content: dict[str, Any] = yaml.load(file.read_bytes(), loader) or {}
    return content
