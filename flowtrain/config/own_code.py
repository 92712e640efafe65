"""Pieces of the user's own: a class or function named as "module:name" in a Python file."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from flowtrain.config.section import imported
from flowtrain.errors import ConfigError

IMPORT_STRING = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
ImportString = Annotated[str, Field(pattern=IMPORT_STRING)]


def import_own(key: str, target: str) -> Any:
    """Import a class or function from PYTHONPATH or from beside the working directory.

    Args:
        key: of the config, for messages.
        target: "module:name".

    Raises:
        ConfigError: there is no such module or name, or the module fails while it is imported.

    >>> import_own("data.target", "math:hypot")(3.0, 4.0)
    5.0
    """
    module, _, name = target.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)  # last, so that no file of a working directory hides a package
    try:
        return imported(target)
    except ModuleNotFoundError as error:
        if error.name is not None and module.split(".")[0] == error.name.split(".")[0]:
            raise ConfigError(
                f"{key}: no module {error.name!r} on PYTHONPATH or in {here}"
            ) from None
        raise ConfigError(f"{key}: {target}: {in_one_line(error)}") from error
    except AttributeError as error:
        if name in str(error):
            raise ConfigError(f"{key}: {module} has no {name!r}") from None
        raise ConfigError(f"{key}: {target}: {in_one_line(error)}") from error
    except Exception as error:  # any code may run there
        raise ConfigError(f"{key}: {target}: {in_one_line(error)}") from error
    finally:
        sys.path.remove(here)


def build_own(key: str, target: str, arguments: dict[str, Any]) -> Any:
    """Import a class or function and call it.

    Args:
        key: of the config, for messages.
        target: "module:name".
        arguments: keyword arguments of the call.

    Raises:
        ConfigError: it cannot be imported, or refuses its arguments.

    >>> build_own("data", "fractions:Fraction", {"numerator": 1, "denominator": 2})
    Fraction(1, 2)
    """
    owner = import_own(key, target)
    try:
        return owner(**arguments)
    except Exception as error:
        raise ConfigError(f"{key}: {target}: {in_one_line(error)}") from error


def own_function(key: str, target: str, arguments: dict[str, Any]) -> Callable[..., Any]:
    """Import a function, and return it with some arguments; a failure of its own is told in a line.

    Args:
        key: of the config, for messages.
        target: "module:name".
        arguments: keyword arguments of every call.

    Raises:
        ConfigError: it cannot be imported; or, when it is called, it fails.

    >>> own_function("data", "builtins:int", {"base": 2})("101")
    5
    """
    owner = import_own(key, target)

    def function(*positional: Any) -> Any:
        try:
            return owner(*positional, **arguments)
        except Exception as error:
            raise ConfigError(f"{key}: {target}: {in_one_line(error)}") from error

    return function


def in_one_line(error: BaseException) -> str:
    """Say what an error in the user's code was and on which line, in one line.

    >>> in_one_line(ValueError("noise must be\\npositive"))
    'ValueError: noise must be positive'
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == Path.cwd()]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}{where}"
