"""flowtrain: train normalizing flows and read their exact distance to the truth.

Public names: `load`, `Flow`, `densities`. They are imported on first use, so that importing the
package is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowtrain import densities
    from flowtrain.flows.flow import Flow
    from flowtrain.runs.load import load

__version__ = "0.2.0"
__all__ = ["Flow", "__version__", "densities", "load"]


def __getattr__(name: str) -> Any:
    match name:
        case "load":
            return importlib.import_module("flowtrain.runs.load").load
        case "Flow":
            return importlib.import_module("flowtrain.flows.flow").Flow
        case "densities":
            return importlib.import_module("flowtrain.densities")
    raise AttributeError(f"module 'flowtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
