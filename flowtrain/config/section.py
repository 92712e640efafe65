"""What every section of the config is: checked values, and the name of the class they build."""

from collections.abc import Iterator
from enum import Enum, auto
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from flowtrain.errors import ConfigError

Count = Annotated[int, Field(ge=1, le=10**12)]
Rows = Annotated[int, Field(ge=1, le=10**9)]  # held at once; the machine's memory sets less
Units = Annotated[int, Field(ge=1, le=2**16)]  # of a layer
Layers = Annotated[int, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Dtype = Literal["float32", "float64"]


class Mark(Enum):
    """What the rest of the program may assume of a field; it stands in the field's annotation.

    >>> from typing import Annotated
    >>> class Budget(Section):
    ...     max_steps: Annotated[int, Mark.RESUMABLE]
    >>> list(marked(Budget, Mark.RESUMABLE))
    ['max_steps']
    """

    RESUMABLE = auto()  # may change when a run is resumed
    INCIDENTAL = auto()  # does not change what is learned: no difference in a comparison
    SHAPELESS = auto()  # does not change the function of a model's weights
    SETTLED = auto()  # may be "auto" until the data are read
    PATH = auto()  # leads to its file from any folder


def absolute(path: str) -> str:
    """Return a path that leads from any folder to where this one does from here.

    >>> absolute("/data/../points.csv")
    '/data/../points.csv'
    """
    return str(Path(path).expanduser().absolute())


FullPath = Annotated[str, Field(min_length=1), AfterValidator(absolute), Mark.PATH]


class Section(BaseModel):
    """A part of the config: unknown keys, silent conversions, NaN and infinity are refused.

    A section that stands for an object names the object's class or function in `owner`, as
    "module:name". It is imported when it is built, so that the schema never waits for torch.

    >>> class Date(Section):
    ...     owner = "datetime:date"
    ...     year: int
    >>> Date(year=2024).build(month=2, day=29).isoformat()
    '2024-02-29'
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    owner: ClassVar[str] = ""

    def settings(self) -> dict[str, Any]:
        """Return the fields other than `name`, as keyword arguments of the owner."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}

    def build(self, *positional: Any, **context: Any) -> Any:
        """Import the owner and call it with the section's fields and whatever the caller adds."""
        return imported(self.owner)(*positional, **self.settings(), **context)


class OneOf:
    """In the annotation of a field: its value is that subclass of a group which `name` selects.

    >>> from typing import Annotated
    >>> from flowtrain.config.scheduler import Scheduler
    >>> class Course(Section):
    ...     scheduler: Annotated[Scheduler, OneOf()]
    >>> Course.model_validate({"scheduler": {"name": "constant", "warmup": 0.1}}).scheduler
    Constant(name='constant', warmup=0.1)
    """

    def __get_pydantic_core_schema__(
        self, group: type[Section], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        union: Any = Union[tuple(options(group))]  # noqa: UP007 - of classes known at run time
        return handler.generate_schema(Annotated[union, Field(discriminator="name")])


class OrAuto:
    """In the annotation of a number: it may be "auto", which `settle` turns into a number.

    The static type is what it is from then on.

    >>> from typing import Annotated
    >>> class Budget(Section):
    ...     steps: Annotated[int, OrAuto()]
    >>> Budget(steps="auto").model_dump(), Budget(steps=3).steps
    ({'steps': 'auto'}, 3)
    """

    def __get_pydantic_core_schema__(
        self, number: type, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda value, check: value if value == "auto" else check(value),
            handler(number),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )


def options(group: type[Section]) -> list[type[Section]]:
    """Return the sections of a group: its subclasses, at any depth, that a name selects.

    >>> from flowtrain.config.solver import Solver
    >>> [section.__name__ for section in options(Solver)]
    ['NoSolver', 'Adaptive', 'FixedStep', 'Implicit']
    """
    found = []
    for section in group.__subclasses__():
        if names(section):
            found.append(section)
        found += options(section)
    return found


def names(section: type[Section]) -> tuple[str, ...]:
    """Return the names that select a section; none if it only is the base of others.

    >>> from flowtrain.config.solver import Implicit, Solver
    >>> names(Implicit), names(Solver)
    (('implicit_adams',), ())
    """
    field = section.model_fields.get("name")
    return () if field is None else get_args(field.annotation)


def marked(
    section: type[Section], mark: Mark, prefix: str = "", *, whole: bool = False
) -> Iterator[str]:
    """Yield the dotted keys of the fields that bear a mark, in a section and those below it.

    A mark on a group holds for all of its settings.

    Args:
        section: where to look.
        mark: what to look for.
        prefix: of the keys.
        whole: whether the section as a whole bears the mark.

    >>> from flowtrain.config.schema import Config
    >>> list(marked(Config, Mark.SHAPELESS))
    ['model.divergence', 'model.probes', 'model.noise']
    """
    for key, field in section.model_fields.items():
        bears = whole or mark in field.metadata
        if bears:
            yield prefix + key
        below = field.annotation
        if isinstance(below, type) and issubclass(below, Section):
            for option in options(below) or [below]:
                yield from marked(option, mark, f"{prefix}{key}.", whole=bears)


def require_extra(package: str, *, chosen: str, extra: str) -> None:
    """Refuse an option whose package is not installed.

    Args:
        package: that it needs.
        chosen: the option, as typed.
        extra: of flowtrain, by which it is installed.

    Raises:
        ConfigError: with the command that installs it.

    >>> require_extra("zukko", chosen="model=zukko", extra="zoo")
    Traceback (most recent call last):
        ...
    flowtrain.errors.ConfigError: model=zukko is an extra: pip install 'flowtrain[zoo]'
    """
    if find_spec(package) is None:
        raise ConfigError(f"{chosen} is an extra: pip install 'flowtrain[{extra}]'")


def imported(owner: str) -> Any:
    """Import what "module:name" names.

    >>> imported("math:hypot")(3.0, 4.0)
    5.0
    """
    module, _, name = owner.partition(":")
    return getattr(import_module(module), name)


def dotted(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings flat, by dotted key.

    >>> dotted({"seed": 0, "model": {"name": "ffjord", "width": 64}})
    {'seed': 0, 'model.name': 'ffjord', 'model.width': 64}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= dotted(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
