"""The reference of the config: allowed values from the schema, defaults and words from conf/."""

import re
import sys
from collections.abc import Iterator
from typing import Any

from docs.hooks.conf_files import Option, Setting, options_of
from flowtrain.config import CONF
from flowtrain.config.schema import Config
from flowtrain.config.section import Section, names, options


def groups() -> dict[str, type[Section]]:
    """Return the groups of the config that have a section, by name."""
    fields = {key: field.annotation for key, field in Config.model_fields.items()}
    return {key: value for key, value in fields.items() if is_section(value)}  # type: ignore[misc]


def is_section(annotation: object) -> bool:
    """Return whether the annotation of a field is a section of the schema."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def reference() -> str:
    """Return the page, in Markdown."""
    lines = [HEAD, "## The run itself", ""]
    own = Option(CONF / "config.yaml").settings
    keys = [key for key in Config.model_fields if key not in groups()]
    schema = Config.model_json_schema()
    lines += _table([(key, allowed(schema["properties"][key]), [(own[key], [])]) for key in keys])
    for group, section in groups().items():
        lines += ["", *_group(group, section)]
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir()):
        if folder.name not in (*groups(), OF_HYDRA):
            lines += ["", *_recipes(folder.name)]
    return "\n".join(lines) + "\n"


def _group(group: str, base: type[Section]) -> Iterator[str]:
    yield f"## `{group}` {{ #{group} }}"
    yield ""
    told = re.sub(r"^The groups? .*?: ", "", (sys.modules[base.__module__].__doc__ or ""))
    told = told.splitlines()[0]
    yield f"{told[0].upper()}{told[1:]}"
    yield ""
    found = options_of(group)
    yield from _summaries(group, found)
    for section in options(base) or [base]:
        mine = [option for option in found if _section_of(option, base) is section]
        properties = section.model_json_schema()["properties"]
        rows = []
        for key in section.model_fields:
            described = [
                (option.settings[key], option) for option in mine if key in option.settings
            ]
            selects = key == "name" and {option.name for option in mine} >= {*names(section)}
            if described and not selects:
                rows.append((f"{group}.{key}", allowed(properties[key]), _values(described)))
        if rows:
            yield ""
            shared = f"Settings of {', '.join(f'`{option.name}`' for option in mine)}:"
            yield shared if options(base) else "Settings:"
            yield ""
            yield from _table(rows)


def _section_of(option: Option, base: type[Section]) -> type[Section]:
    if not options(base):
        return base
    name = option.settings["name"].value
    return next(section for section in options(base) if name in names(section))


def _values(described: list[tuple[Setting, Option]]) -> list[tuple[Setting, list[str]]]:
    """Return the different values of a key, each with the options that have it."""
    found: dict[str, tuple[Setting, list[str]]] = {}
    for setting, option in described:
        found.setdefault(setting.value, (setting, []))[1].append(option.name)
    return list(found.values())


def _summaries(group: str, found: list[Option]) -> Iterator[str]:
    yield "| option | what it is | it also chooses |"
    yield "|---|---|---|"
    for option in found:
        also = ", ".join(f"`{choice}`" for choice in option.chooses)
        typed = option.name if group in FOUND else f"{group}={option.name}"
        yield f"| `{typed}` | {_cell(option.summary)} | {also} |"


def _recipes(group: str) -> Iterator[str]:
    """Yield a group whose options set keys of other groups."""
    found = [Option(path) for path in sorted((CONF / group).glob("*.yaml"))]
    yield f"## `{group}` {{ #{group} }}"
    yield ""
    yield RECIPES.get(group, "")
    yield ""
    yield from _summaries(group, found)
    yield ""
    yield "| option | sets | to | meaning |"
    yield "|---|---|---|---|"
    for option in found:
        for key, setting in option.settings.items():
            yield (f"| `{option.name}` | `{key}` | `{setting.value}` | {_cell(setting.comment)} |")


def _table(rows: list[tuple[str, str, list[tuple[Setting, list[str]]]]]) -> Iterator[str]:
    yield "| key | default | allowed | meaning |"
    yield "|---|---|---|---|"
    for key, values_allowed, values in rows:
        default = "<br>".join(
            f"`{setting.value}`" + (f" ({', '.join(having)})" if len(values) > 1 else "")
            for setting, having in values
        )
        yield f"| `{key}` | {default} | {values_allowed} | {_cell(values[0][0].comment)} |"


def allowed(schema: dict[str, Any]) -> str:
    """Say in words what the JSON schema of a value allows.

    >>> allowed({"type": "integer", "minimum": 1}), allowed({"enum": ["silu", "tanh"]})
    ('whole number ≥ 1', '`silu`, `tanh`')
    >>> allowed({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]})
    'number > 0, or `null`'
    """
    match schema:
        case {"anyOf": choices}:
            return ", or ".join(allowed(choice) for choice in choices)
        case {"enum": values}:
            return ", ".join(f"`{_yaml(value)}`" for value in values)
        case {"const": value}:
            return f"`{_yaml(value)}`"
        case {"type": "null"}:
            return "`null`"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "array", "items": items}:
            least, most = schema.get("minItems"), schema.get("maxItems")
            count = {None: "", least: f" of {least}"}.get(most, "") if least else ""
            return f"list{count}, each: {allowed(items)}"
        case {"type": "object"}:
            return "keys and values of your own"
        case {"type": "integer" | "number" as kind}:
            word = "whole number" if kind == "integer" else "number"
            bounds = [f"{sign} {schema[key]:,}" for key, sign in BOUNDS.items() if key in schema]
            return f"{word} {' and '.join(bounds)}".strip()
        case {"type": "string", "pattern": pattern}:
            return f"text like `{_cell(pattern.strip('^$'))}`"
        case {"type": "string"}:
            return "text"
    return "an option of [`solver`](#solver)"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    """Escape what would end a cell of a table, or begin a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

OF_HYDRA = "hydra"  # a folder that Hydra looks in: no group of ours
FOUND = ("experiment_on", "model_on")  # by the names of others: nobody types them

RECIPES = {
    "sweep": "Which jobs a sweep has: `flowtrain -m model=realnvp,ffjord seed=0,1,2`.",
    "experiment": "A recipe chooses options of other groups and changes some of their settings: "
    "`flowtrain experiment=best data=rings`. What you type beside it wins.",
    "experiment_on": "What a recipe needs more on one kind of data. It is found by the two names "
    "and cannot be typed.",
    "model_on": "What a model needs on the rows of a table. It is found by the names of the model "
    "and of `splits`, and cannot be typed.",
    "launcher": "Where the jobs of a sweep run: `flowtrain -m seed=0,1,2,3 launcher=joblib`.",
}

HEAD = """\
# Every setting

This page is made from the schema and from the files of `conf/` when the site is built: what stands
here is what the program accepts.

A **group** is a folder of `conf/`, an **option** is a file in it. `group=option` chooses a whole
file; `group.key=value` changes one value of it:

```
flowtrain model=spline model.bins=32 optimizer.lr=1e-3
```

`solver@evaluation.solver=dopri8` means: take the option `dopri8` of the group `solver`, and put
it at the key `evaluation.solver`. The part after `@` is the place; without it the place is the
group's own name.

`flowtrain --cfg job` prints the whole config of a command without running it. A setting that would
have no effect is refused, and so are unknown keys and values that are not allowed.
"""
