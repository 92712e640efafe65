"""flowtrain: train normalizing flows and read their exact distance to the truth.

Public names: `load`, `Flow`, `densities`. They are imported on first use, so that importing the
package is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowtrain import data as densities
    from flowtrain.flows import Flow
    from flowtrain.runs import load

__version__ = "0.1.0"
__all__ = ["Flow", "__version__", "densities", "load"]


def __getattr__(name: str) -> Any:
    match name:
        case "load":
            return importlib.import_module("flowtrain.runs").load
        case "Flow":
            return importlib.import_module("flowtrain.flows").Flow
        case "densities":
            return importlib.import_module("flowtrain.data")
    raise AttributeError(f"module 'flowtrain' has no attribute {name!r}")
