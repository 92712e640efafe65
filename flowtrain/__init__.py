"""flowtrain: train normalizing flows and read their exact distance to the truth.

Public names: `train`, `fit`, `load`, `Flow`, `Trained`, `UserError`, `densities`. They are imported
on first use, so that importing the package is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowtrain import densities
    from flowtrain.api import Trained, fit, train
    from flowtrain.errors import UserError
    from flowtrain.flows.flow import Flow
    from flowtrain.runs.load import load

__version__ = "0.2.0"
__all__ = [
    "Flow", "Trained", "UserError", "__version__", "densities", "fit", "load", "train",
]  # fmt: skip

_PLACES = {
    "Flow": "flowtrain.flows.flow",
    "Trained": "flowtrain.api",
    "UserError": "flowtrain.errors",
    "fit": "flowtrain.api",
    "load": "flowtrain.runs.load",
    "train": "flowtrain.api",
}


def __getattr__(name: str) -> Any:
    if name == "densities":
        return importlib.import_module("flowtrain.densities")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'flowtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
