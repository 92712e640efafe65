"""The group `data`: densities that are known exactly, and points of the user's own."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from flowtrain.config.messages import describe
from flowtrain.config.own_code import ImportString, build_own, own_function
from flowtrain.config.section import FullPath, Mark, NotNegative, Positive, Section, imported


class Data(Section):
    """The base of the group.

    Attributes:
        splits: the option of the group `splits` that it needs.
        known: whether its density is known.
        conditional: whether something is given of each point, so that p(x | c) is learned.

    >>> section = Rings(
    ...     name="rings", radii=[1.0, 2.0], noise=0.1, condition=None, interval=None)
    >>> density = section.build()
    >>> type(density).__module__, density.sample(5, torch.Generator()).shape
    ('flowtrain.densities.radial', torch.Size([5, 2]))
    """

    splits: ClassVar[str] = "sampled"
    known: ClassVar[bool] = True
    name: str

    @property
    def title(self) -> str:
        """What a user knows the data by."""
        return self.name

    @property
    def dimensions(self) -> int | None:
        """Of the points of a known density; None where only building it, or reading it, tells."""
        return 2 if self.known else None

    @property
    def on_grid(self) -> bool:
        """Whether its density may be known on a line or a plane, which a grid covers."""
        return self.known and self.dimensions in (1, 2, None)

    @property
    def conditional(self) -> bool:
        return getattr(self, "condition", None) is not None

    @property
    def kinds(self) -> int:
        """How many components may be given of a point, as far as there may be many; 0 is few."""
        return 0


class Known(Data):
    """What all data with a known density have; the base of those below.

    Attributes:
        condition: what is given of a point, so that p(x | c) is learned: its component, the angle
            by which it is turned, or a setting that is a number; null learns p(x).
        interval: of the angle, in radians, or of the setting.

    >>> moons = {"name": "moons", "noise": 0.1, "scale": 1.0, "shift": [0.0, 0.0]}
    >>> sorted(Moons(condition="component", interval=None, **moons).settings())
    ['noise', 'scale', 'shift']
    >>> Moons(condition="noise", interval=[0.05, 0.3], **moons).at(0.2).settings()["noise"]
    0.2
    """

    # Defaults, for files of a user's own that were written before there were conditions.
    condition: str | None = None
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    def settings(self) -> dict[str, Any]:
        """Return what builds the density: all but what is given of its points."""
        given = ("condition", "interval")
        return {key: value for key, value in super().settings().items() if key not in given}

    @property
    def numbers(self) -> tuple[str, ...]:
        """The settings that can be a condition: those that are real numbers."""
        fields = type(self).model_fields
        return tuple(key for key, field in fields.items() if field.annotation is float)

    def at(self, value: float) -> Self:
        """Return the section of p(x) at a value of its condition.

        Raises:
            ValidationError: the setting cannot have it.
        """
        changes = {"condition": None, "interval": None, self.condition: value}
        return type(self).model_validate(self.model_dump() | changes)

    @model_validator(mode="after")
    def _something_can_be_given(self) -> Self:
        if self.condition in (None, "component"):
            if self.interval is not None:
                raise ValueError(
                    "interval belongs to a condition that is a number, as rotation; leave it null"
                )
            return self
        self._require_number(self.condition)
        if self.interval is None:
            raise ValueError(
                f"condition={self.condition} needs interval, two numbers as [0.05,0.3]"
            )
        if self.condition != "rotation":
            for end in self.interval:
                self._require_possible(end)
        return self

    def _require_number(self, condition: str) -> None:
        choices = ("component", "rotation", *self.numbers)
        if condition not in choices:
            raise ValueError(
                f"condition={condition} cannot be given; choose from {', '.join(choices)}"
            )

    def _require_possible(self, value: float) -> None:
        try:
            self.at(value)
        except ValidationError as error:
            raise ValueError(f"interval: {describe(error.errors()[0])}") from None


class Moons(Known):
    owner: ClassVar[str] = "flowtrain.densities.curves:Moons"
    name: Literal["moons"]
    noise: Positive
    scale: Positive
    shift: list[float] = Field(min_length=2, max_length=2)


class Circles(Known):
    owner: ClassVar[str] = "flowtrain.densities.radial:circles"
    name: Literal["circles"]
    noise: Positive
    factor: float = Field(gt=0, lt=1)
    scale: Positive


class Pinwheel(Known):
    owner: ClassVar[str] = "flowtrain.densities.pinwheel:Pinwheel"
    name: Literal["pinwheel"]
    arms: int = Field(ge=1, le=100)
    radial_std: Positive
    tangential_std: Positive
    rate: NotNegative
    scale: Positive


class EightGaussians(Known):
    owner: ClassVar[str] = "flowtrain.densities.mixtures:eight_gaussians"
    name: Literal["eight_gaussians"]
    radius: Positive
    noise: Positive
    scale: Positive


class TwoSpirals(Known):
    owner: ClassVar[str] = "flowtrain.densities.curves:TwoSpirals"
    name: Literal["two_spirals"]
    noise: Positive
    turns: Positive
    jitter: NotNegative
    scale: Positive


class Checkerboard(Known):
    owner: ClassVar[str] = "flowtrain.densities.checkerboard:Checkerboard"
    name: Literal["checkerboard"]
    squares: int = Field(ge=2, le=1000)
    side: Positive


class Rings(Known):
    owner: ClassVar[str] = "flowtrain.densities.radial:Rings"
    name: Literal["rings"]
    radii: list[Positive] = Field(min_length=1, max_length=1000)
    noise: Positive

    @property
    def kinds(self) -> int:
        return len(self.radii) if self.condition == "component" else 0


class Swissroll(Known):
    owner: ClassVar[str] = "flowtrain.densities.curves:Swissroll"
    name: Literal["swissroll"]
    noise: Positive
    scale: Positive


class GaussianMixture(Known):
    owner: ClassVar[str] = "flowtrain.densities.mixtures:GaussianMixture"
    name: Literal["gaussian_mixture"]
    means: list[Annotated[list[float], Field(min_length=1, max_length=2)]] = Field(
        min_length=1, max_length=1000
    )
    covariances: list[list[list[float]]] = Field(min_length=1, max_length=1000)
    weights: list[Positive] = Field(min_length=1, max_length=1000)

    @property
    def dimensions(self) -> int:
        return len(self.means[0])

    @property
    def kinds(self) -> int:
        return len(self.weights) if self.condition == "component" else 0

    @model_validator(mode="after")
    def _a_line_is_not_turned(self) -> Self:
        if self.dimensions == 1 and self.condition == "rotation":
            raise ValueError("condition=rotation needs points in a plane; leave it null")
        return self


class Banana(Known):
    owner: ClassVar[str] = "flowtrain.densities.energies:Banana"
    name: Literal["banana"]
    spread: Positive
    noise: Positive
    curvature: Positive


class Funnel(Data):
    owner: ClassVar[str] = "flowtrain.densities.funnel:Funnel"
    name: Literal["funnel"]
    dim: int = Field(ge=2, le=1000)
    spread: Positive

    @property
    def dimensions(self) -> int:
        return self.dim


class LogisticRegression(Data):
    owner: ClassVar[str] = "flowtrain.densities.logistic_regression:LogisticRegression"
    name: Literal["logistic_regression"]
    prior_std: Positive

    @property
    def dimensions(self) -> int:
        return 31


class StudentT(Data):
    owner: ClassVar[str] = "flowtrain.densities.student_t:StudentT"
    name: Literal["student_t"]
    dim: int = Field(ge=1, le=2)
    df: float = Field(ge=1, le=1000)
    scale: Positive

    @property
    def dimensions(self) -> int:
        return self.dim


class U1(Known):
    owner: ClassVar[str] = "flowtrain.densities.energies:TwoArcs"
    name: Literal["u1"]
    thickness: Positive


class U2(Known):
    owner: ClassVar[str] = "flowtrain.densities.energies:u2"
    name: Literal["u2"]
    thickness: Positive


class U3(Known):
    owner: ClassVar[str] = "flowtrain.densities.energies:u3"
    name: Literal["u3"]
    thickness: Positive


class U4(Known):
    owner: ClassVar[str] = "flowtrain.densities.energies:u4"
    name: Literal["u4"]
    thickness: Positive
    second_thickness: Positive


class Custom(Known):
    """A density of the user's own: a class or function of a Python file, and its arguments."""

    name: Literal["custom"]
    target: ImportString
    arguments: dict[str, Any]

    @property
    def dimensions(self) -> None:
        """Not known before the user's code has run."""

    def build(self, *positional: Any, **context: Any) -> Any:
        return build_own("data", self.target, self.arguments)

    def at(self, value: float) -> Self:
        assert self.condition is not None
        arguments = {**self.arguments, self.condition: value}
        return self.model_copy(update={"condition": None, "interval": None, "arguments": arguments})

    def _require_number(self, condition: str) -> None:
        """Leave it to the user's code which arguments it has."""
        if condition in self.arguments:
            raise ValueError(f"arguments.{condition} is drawn from interval; leave it out")


class Unnormalized(Data):
    """A law known up to a constant: the user's own function of points, and what else it takes."""

    splits: ClassVar[str] = "none"
    name: Literal["unnormalized"]
    target: ImportString
    arguments: dict[str, Any]
    dim: int = Field(ge=1, le=1000)
    window: list[float | list[float]]

    @field_validator("window", mode="wrap")
    @classmethod
    def _of_two_corners(cls, window: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            found = check(window)
        except ValidationError:
            found = []
        if window is not None and len(found) != 2:
            raise ValueError(
                f"{window} is refused: it should be two numbers, as [-5,5], or two corners, as "
                "[[-5,0],[5,9]]"
            )
        return check(window)

    @property
    def dimensions(self) -> int:
        return self.dim

    def build(self, *positional: Any, **context: Any) -> Any:
        log_density = own_function("data", self.target, self.arguments)
        target = imported("flowtrain.densities.target:Target")
        return target(log_density, dim=self.dim, window=self.window)


class Rows(Data):
    """What all points without a known density have; the base of those below.

    Attributes:
        dequantize: whether columns on a grid are spread over its cells by noise.

    >>> [section.__name__ for section in Rows.__subclasses__()]
    ['Table', 'Sklearn']
    """

    splits: ClassVar[str] = "random"
    known: ClassVar[bool] = False
    dequantize: bool

    def settings(self) -> dict[str, Any]:
        """Return what reads the points: all but what becomes of them."""
        return {key: value for key, value in super().settings().items() if key != "dequantize"}


class Table(Rows):
    owner: ClassVar[str] = "flowtrain.data.read:read_table"
    name: Literal["table"]
    path: Annotated[FullPath, Mark.RESUMABLE]  # to the same rows
    columns: Annotated[list[str | int], Field(min_length=1)] | None
    condition: Annotated[list[str | int], Field(min_length=1)] | None
    categorical: list[str | int] | None
    header: Literal["auto", True, False]
    missing: Literal["refuse", "drop"]

    @model_validator(mode="after")
    def _categories_are_of_the_condition(self) -> Self:
        if self.condition is None and self.categorical is not None:
            raise ValueError("categorical names columns of condition, which is null; leave it null")
        return self

    @property
    def title(self) -> str:
        """Of its file, without the suffix."""
        return Path(self.path).stem


class Sklearn(Rows):
    owner: ClassVar[str] = "flowtrain.data.sklearn_sets:load_sklearn"
    name: Literal["digits", "iris", "wine", "breast_cancer", "diabetes"]
    condition: Literal["target"] | None

    def settings(self) -> dict[str, Any]:
        """Return what reads the points, the set's name among it: it selects the section, too."""
        return {"name": self.name, **super().settings()}
