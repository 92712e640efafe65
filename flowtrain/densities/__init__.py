"""Known densities, each with its samples, its log_prob and its entropy.

`__all__` names them: what the group `data` of the config offers. Each is imported on first use. A
density of your own subclasses `Density`.
"""

from importlib import import_module
from typing import Any

from flowtrain.config.data import Data
from flowtrain.config.section import options
from flowtrain.densities.density import Density

_OWNERS = {
    name: module
    for section in options(Data)
    for module, _, name in [section.owner.partition(":")]
    if module.startswith(f"{__name__}.")
}

__all__ = ["Density", *sorted(_OWNERS)]


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)


def __dir__() -> list[str]:
    return __all__
