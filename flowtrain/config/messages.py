"""Problems that pydantic finds, each in one line: where, what it is, what is allowed."""

import re
from functools import cache
from typing import Any

from flowtrain.config.own_code import IMPORT_STRING
from flowtrain.config.section import Section, names, options

# Of settings whose types say too little: what a value should be.
DEVICES = "auto, cpu, mps, cuda or, of several, cuda:0, cuda:1 and so on"
SECONDS = "a number of seconds, such as 60"
ROWS = "a number of points; fractions are for the rows of a table (splits=random)"


@cache
def tags() -> frozenset[str]:
    """Return the names of all options, which pydantic puts into paths: model.realnvp.hidden.

    >>> from flowtrain.config.schema import Config
    >>> "realnvp" in tags(), "hidden" in tags()
    (True, False)
    """
    return frozenset(name for section in options(Section) for name in names(section))


def describe(problem: Any) -> str:
    """Say in one line where a value is wrong, what it is and what is allowed.

    Args:
        problem: one of a ValidationError's `errors()`.

    >>> from flowtrain.config.schema import Config
    >>> describe({"type": "missing", "loc": ("model", "realnvp", "hidden")})
    'model.hidden: missing; it has no default'
    """
    path = problem["loc"]
    if problem["type"] != "union_tag_invalid":
        path = tuple(part for part in path if part not in tags())
    where = ".".join(str(part) for part in path)
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key"
        case "missing":
            return f"{where}: missing; it has no default"
        case "string_type" | "int_type" | "list_type" if problem["input"] is None:
            return f"{where}: missing; it has no default"
        case "union_tag_invalid":
            return (
                f"{where}.name: {problem['ctx']['tag']!r} is unknown; "
                f"choose from {_names_that_fit(problem)}"
            )
        case "value_error":
            return f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
        case "model_attributes_type" | "model_type":
            option = f"; try {path[-1]}@{where}=option" if len(path) > 1 else ""
            return f"{where}: {problem['input']!r} is no group of settings{option}"
        case "list_type" if isinstance(problem["input"], str):
            return f"{where}: {problem['input']!r} is no list; write {where}=[{problem['input']}]"
        case "int_type" if isinstance(number := problem["input"], float) and number.is_integer():
            return f"{where}: {number!r} is refused: write {int(number)}"
        case "string_pattern_mismatch" if problem["ctx"]["pattern"] == IMPORT_STRING:
            return f"{where}: {problem['input']!r} is refused: it should be module:Name"
    match where, problem["type"], problem["input"]:
        case "trainer.device", _, given:
            meant = "; did you mean cuda?" if given in ("gpu", "GPU") else ""
            message = f"it should be {DEVICES}{meant}"
        case "trainer.max_seconds", "float_type", str():
            message = f"it should be {SECONDS}"
        case "splits.train" | "splits.val" | "splits.test", "int_type", float():
            message = f"it should be {ROWS}"
        case _:
            message = re.sub("^(Input|List|String) should", "it should", problem["msg"])
            message = message.replace(" after validation", "")
    return f"{where}: {problem['input']!r} is refused: {message}"


def _names_that_fit(problem: Any) -> str:
    """Return the names of an option of several that has the keys that are given; else all names."""
    expected, given = problem["ctx"]["expected_tags"], problem["input"].keys()
    for section in options(Section):
        shown = ", ".join(map(repr, names(section)))
        if "," in shown and shown in expected and given <= section.model_fields.keys():
            return shown
    return str(expected)
