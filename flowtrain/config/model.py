"""The group `model`: discrete flows, and the continuous one."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from flowtrain.config.own_code import IMPORT_STRING, import_own
from flowtrain.config.section import (
    Layers,
    Mark,
    OrAuto,
    Positive,
    Section,
    Units,
    imported,
    require_extra,
)

EXACT_EVALUATION_UP_TO = 64  # dimensions in which a continuous flow's trace is never estimated

# The vector fields of the package by name; any other comes from the user's own code.
FIELDS = {
    "concatsquash": "flowtrain.flows.fields:ConcatSquash",
    "fourier": "flowtrain.flows.fields:Fourier",
    "time_mlp": "flowtrain.flows.fields:TimeMLP",
}

COMPONENTS = 8  # of a mixture, unless told otherwise

BASES = {
    "normal": "flowtrain.flows.bases:Normal",
    "student_t": "flowtrain.flows.bases:StudentT",
    "mixture": "flowtrain.flows.bases:Mixture",
}


class Model(Section):
    """The base of the group.

    Attributes:
        continuous: whether an ODE is solved between base and data.
        takes_condition: whether it can learn p(x | c).
        compiles: whether torch can compile it.
        threads_share: whether several threads may compute with it at once.
        stackable: whether copies of it can be computed as one, of a continuous flow its velocity.
        whitening: the fixed map from data to the coordinates in which it learns: "columns",
            each with its mean and deviation; "covariance", decorrelated as well, in float64;
            "johnson", columns with heavy or skewed tails bent besides, and left correlated where
            that is nearer to independence.
        base: the law in those coordinates that it carries to the data.
        components: of a mixture; None is `COMPONENTS`.

    >>> from flowtrain.flows import Standardize
    >>> standardize = Standardize(torch.zeros(2), torch.ones(2))
    >>> affine = Affine(name="affine", whitening="columns", base="mixture", components=3)
    >>> affine.build(standardize, generator=torch.Generator()).dim
    2
    >>> affine.build_base(2, generator=torch.Generator()).means.shape
    torch.Size([3, 2])
    >>> Affine.continuous, FFJORD.continuous
    (False, True)
    """

    continuous: ClassVar[bool] = False
    compiles: ClassVar[bool] = True
    threads_share: ClassVar[bool] = True
    stackable: ClassVar[bool] = False
    name: str
    whitening: Literal["columns", "covariance", "johnson"]
    base: Literal["normal", "student_t", "mixture"]
    components: Annotated[int, Field(ge=1, le=1000)] | None

    @property
    def takes_condition(self) -> bool:
        return True

    @model_validator(mode="after")
    def _components_belong_to_a_mixture(self) -> Self:
        if self.base != "mixture" and self.components is not None:
            raise ValueError(f"components has no effect with base={self.base}; leave it null")
        return self

    def settings(self) -> dict[str, Any]:
        """Return what the builder takes: `build_flow` adds the whitening and the base."""
        apart = Model.model_fields
        return {key: value for key, value in super().settings().items() if key not in apart}

    def build_base(self, dim: int, *, generator: Any) -> Any:
        """Return the base, of so many dimensions; what it draws comes from the generator."""
        of_mixture = {"components": self.components or COMPONENTS, "generator": generator}
        return imported(BASES[self.base])(dim, **(of_mixture if self.base == "mixture" else {}))

    def weights(self, dim: int) -> int:
        """Return how many weights a flow of so many dimensions has at least; 0 is unknown."""
        return 0

    def units(self, dim: int) -> int:
        """Return how many numbers training holds for a row at least, on their way; 0 is unknown."""
        return dim

    def widest(self, dim: int) -> int:
        """Return how many numbers of a row are in the largest tensor of an evaluation, roughly."""
        return dim


def at_least(count: int | str) -> int:
    """Return a count, or 1 for one that the data have not settled yet.

    >>> at_least(8), at_least("auto")
    (8, 1)
    """
    return count if isinstance(count, int) else 1


class Affine(Model):
    owner: ClassVar[str] = "flowtrain.flows.linear:affine"
    stackable: ClassVar[bool] = True
    name: Literal["affine"]

    def weights(self, dim: int) -> int:
        return dim**2


class Couplings(Model):
    """What all stacks of couplings have; the base of those below.

    >>> [section.__name__ for section in Couplings.__subclasses__()]
    ['RealNVP', 'Glow', 'Spline']
    """

    stackable: ClassVar[bool] = True
    couplings: Annotated[Layers, OrAuto(), Mark.SETTLED]
    hidden: Annotated[Units, OrAuto(), Mark.SETTLED]
    depth: Layers
    activation: Literal["relu", "silu", "tanh"]

    def weights(self, dim: int) -> int:
        couplings, hidden = (at_least(each) for each in (self.couplings, self.hidden))
        parameters = (dim - dim // 2) * self.per_coordinate
        return couplings * hidden * (dim // 2 + (self.depth - 1) * hidden + parameters)

    def units(self, dim: int) -> int:
        couplings, hidden = (at_least(each) for each in (self.couplings, self.hidden))
        return couplings * (self.depth * hidden + dim)

    def widest(self, dim: int) -> int:
        return max(at_least(self.hidden), (dim - dim // 2) * self.per_coordinate)

    @property
    def per_coordinate(self) -> int:
        """The parameters of the map of a coordinate."""
        return 2


class RealNVP(Couplings):
    owner: ClassVar[str] = "flowtrain.flows.coupling:realnvp"
    name: Literal["realnvp"]
    log_scale_bound: Positive
    mixing: Literal["alternate", "random"]


class Glow(Couplings):
    owner: ClassVar[str] = "flowtrain.flows.coupling:glow"
    name: Literal["glow"]
    log_scale_bound: Positive


class Spline(Couplings):
    owner: ClassVar[str] = "flowtrain.flows.coupling:spline"
    name: Literal["spline"]
    bins: int = Field(ge=2, le=256)
    bound: Positive
    mixing: Literal["alternate", "random", "lu"]

    @property
    def per_coordinate(self) -> int:
        return 3 * self.bins - 1


class Autoregressive(Model):
    """What all autoregressive flows have; the base of those below.

    >>> [section.__name__ for section in Autoregressive.__subclasses__()]
    ['MAF', 'IAF', 'MAFSpline']
    """

    layers: Layers
    hidden: Annotated[Units, OrAuto(), Mark.SETTLED]
    depth: Layers
    activation: Literal["relu", "silu", "tanh"]
    mixing: Literal["reverse", "random", "lu"]

    def weights(self, dim: int) -> int:
        hidden = at_least(self.hidden)
        inner = dim + (self.depth - 1) * hidden + dim * self.per_coordinate
        return self.layers * hidden * inner

    def units(self, dim: int) -> int:
        return self.layers * (self.depth * at_least(self.hidden) + dim * self.per_coordinate)

    def widest(self, dim: int) -> int:
        return max(at_least(self.hidden), dim * self.per_coordinate)

    @property
    def per_coordinate(self) -> int:
        """The parameters of the map of a coordinate."""
        return 2


class MAF(Autoregressive):
    owner: ClassVar[str] = "flowtrain.flows.autoregressive:maf"
    name: Literal["maf"]
    log_scale_bound: Positive


class IAF(Autoregressive):
    owner: ClassVar[str] = "flowtrain.flows.autoregressive:iaf"
    name: Literal["iaf"]
    log_scale_bound: Positive


class MAFSpline(Autoregressive):
    owner: ClassVar[str] = "flowtrain.flows.autoregressive:maf_spline"
    name: Literal["maf_spline"]
    bins: int = Field(ge=2, le=256)
    bound: Positive

    @property
    def per_coordinate(self) -> int:
        return 3 * self.bins - 1


class Planar(Model):
    compiles: ClassVar[bool] = False  # its inverse iterates until it has converged
    owner: ClassVar[str] = "flowtrain.flows.planar:planar"
    name: Literal["planar"]
    layers: Layers

    def units(self, dim: int) -> int:
        return self.layers * dim


class Radial(Model):
    owner: ClassVar[str] = "flowtrain.flows.planar:radial"
    name: Literal["radial"]
    layers: Layers

    def units(self, dim: int) -> int:
        return self.layers * dim


class Peer(Model):
    """What flows of other libraries have; the base of those below.

    Attributes:
        package: the library, of the extra [zoo].

    >>> [section.__name__ for section in Peer.__subclasses__()]
    ['Zuko', 'Normflows']
    """

    compiles: ClassVar[bool] = False
    threads_share: ClassVar[bool] = False
    package: ClassVar[str]
    transforms: Layers
    arguments: dict[str, Any]

    def build(self, *positional: Any, **context: Any) -> Any:
        require_extra(self.package, chosen=f"model={self.package}", extra="zoo")
        return super().build(*positional, **context)


class Zuko(Peer):
    owner: ClassVar[str] = "flowtrain.flows.from_zuko:zuko"
    package: ClassVar[str] = "zuko"
    name: Literal["zuko"]
    flow: Literal["nice", "maf", "nsf", "naf", "unaf", "sospf", "bpf", "gf"]


class Normflows(Peer):
    owner: ClassVar[str] = "flowtrain.flows.from_normflows:normflows"
    package: ClassVar[str] = "normflows"
    name: Literal["normflows"]
    flow: Literal["residual", "realnvp", "nsf", "maf", "nsf_ar"]
    hidden: Units
    depth: Layers

    @property
    def takes_condition(self) -> bool:
        return self.flow not in ("residual", "realnvp")


class FFJORD(Model):
    owner: ClassVar[str] = "flowtrain.flows.continuous:ffjord"
    continuous: ClassVar[bool] = True
    stackable: ClassVar[bool] = True
    name: Literal["ffjord"]
    field: str
    width: Units
    depth: Layers
    activation: Literal["tanh", "softplus", "silu", "gelu"]
    features: Units | None
    scale: Positive | None
    divergence: Annotated[Literal["auto", "exact", "hutchinson"], Mark.SHAPELESS]
    probes: Annotated[Annotated[int, Field(ge=1, le=1000)] | None, Mark.SHAPELESS]
    noise: Annotated[Literal["rademacher", "gaussian"] | None, Mark.SHAPELESS]

    @field_validator("field")
    @classmethod
    def _known_or_the_users_own(cls, field: str) -> str:
        if field not in FIELDS and not re.fullmatch(IMPORT_STRING, field):
            raise ValueError(
                f"{field!r} is unknown; choose from {', '.join(FIELDS)}, "
                "or name a class of your own as module:Class"
            )
        return field

    @model_validator(mode="after")
    def _features_belong_to_fourier(self) -> Self:
        if self.field != "fourier":
            for key in ("features", "scale"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} has no effect with field={self.field}; leave it null")
        return self

    def settings(self) -> dict[str, Any]:
        """Return the fields other than `name`, with as many waves as null stands for."""
        waves = {"features": self.features or 32} if self.field == "fourier" else {}
        return super().settings() | waves

    def weights(self, dim: int) -> int:
        if self.field not in FIELDS:
            return 0
        seen = dim + 2 * (self.features or 32) if self.field == "fourier" else dim
        return self.width * (seen + dim + (self.depth - 1) * self.width)

    def units(self, dim: int) -> int:
        return self.depth * self.width if self.field in FIELDS else dim

    def widest(self, dim: int) -> int:
        tangents = dim if dim <= EXACT_EVALUATION_UP_TO else self.probes or 1
        return tangents * self.width

    def build(self, *positional: Any, **context: Any) -> Any:
        own = self.field not in FIELDS
        field = import_own("model.field", self.field) if own else imported(FIELDS[self.field])
        return imported(self.owner)(*positional, **{**self.settings(), "field": field}, **context)
