"""The pages that mkdocs makes from the program itself, so that they cannot be out of date."""

import importlib
import pkgutil

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import flowtrain
from docs.hooks import command_reference, config_reference

# The rooms of the package that a Python user imports from, in the order of the menu.
ROOMS = (
    "flows",
    "densities",
    "data",
    "evaluation",
    "runs",
    "sweeps",
    "comparison",
    "training",
    "config",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {
        "config.md": config_reference.reference(),
        "commands.md": command_reference.reference(),
        **{f"api/{room}.md": room_page(room) for room in ROOMS},
    }
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def room_page(room: str) -> str:
    """Return the page of a room: what its docstrings say, module by module."""
    package = importlib.import_module(f"flowtrain.{room}")
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    told = (package.__doc__ or "").strip()
    parts = [f"# flowtrain.{room}", told]
    for name in modules:
        parts.append(f"::: {flowtrain.__name__}.{room}.{name}")
    return "\n\n".join(parts) + "\n"
