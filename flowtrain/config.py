"""The config's schema: types, ranges and the meaning of each field. Defaults live in conf/ only."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from flowtrain.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "float64"]


class Section(BaseModel):
    """A part of the config: unknown keys, silent conversions, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def arguments(self) -> dict[str, Any]:
        """Return the fields other than ``name``, as keyword arguments of what the name selects."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}


# --- data ---------------------------------------------------------------------------------------


class Moons(Section):
    name: Literal["moons"]
    noise: Positive
    scale: Positive
    shift: list[float] = Field(min_length=2, max_length=2)


class Circles(Section):
    name: Literal["circles"]
    noise: Positive
    factor: float = Field(gt=0, lt=1)
    scale: Positive


class Pinwheel(Section):
    name: Literal["pinwheel"]
    arms: Count
    radial_std: Positive
    tangential_std: Positive
    rate: NotNegative
    scale: Positive


class EightGaussians(Section):
    name: Literal["eight_gaussians"]
    radius: Positive
    noise: Positive
    scale: Positive


class TwoSpirals(Section):
    name: Literal["two_spirals"]
    noise: Positive
    turns: Positive
    jitter: NotNegative
    scale: Positive


class Checkerboard(Section):
    name: Literal["checkerboard"]
    squares: Annotated[int, Field(ge=2)]
    side: Positive


class Rings(Section):
    name: Literal["rings"]
    radii: list[Positive] = Field(min_length=1)
    noise: Positive


class Swissroll(Section):
    name: Literal["swissroll"]
    noise: Positive
    scale: Positive


class GaussianMixture(Section):
    name: Literal["gaussian_mixture"]
    means: list[list[float]] = Field(min_length=1)
    covariances: list[list[list[float]]] = Field(min_length=1)
    weights: list[Positive] = Field(min_length=1)


class Table(Section):
    name: Literal["table"]
    path: Annotated[str, Field(min_length=1)]
    columns: Annotated[list[str | int], Field(min_length=1)] | None
    header: Literal["auto", True, False]

    @field_validator("path")
    @classmethod
    def _from_any_folder(cls, path: str) -> str:
        return str(Path(path).expanduser().absolute())


class Sklearn(Section):
    name: Literal["digits", "iris", "wine", "breast_cancer"]


Data = Annotated[
    Moons
    | Circles
    | Pinwheel
    | EightGaussians
    | TwoSpirals
    | Checkerboard
    | Rings
    | Swissroll
    | GaussianMixture
    | Table
    | Sklearn,
    Field(discriminator="name"),
]


class Drawn(Section):
    """Points drawn from a density once, from independent seeds."""

    name: Literal["drawn"]
    train: Annotated[int, Field(ge=2)]
    validation: Annotated[int, Field(ge=2)]
    test: Annotated[int, Field(ge=2)]


class Split(Section):
    """A table's rows, dealt at random."""

    name: Literal["split"]
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0, lt=2**31)


# --- model --------------------------------------------------------------------------------------


class Affine(Section):
    """Maps of a coordinate in a coupling: a scale and a shift."""

    name: Literal["affine"]
    log_scale_bound: Positive


class Spline(Section):
    """Maps of a coordinate in a coupling: monotone rational-quadratic splines."""

    name: Literal["spline"]
    bins: int = Field(ge=2, le=256)
    bound: Positive


class CouplingStack(Section):
    """Couplings and mixings; a name stands for what it is in the literature."""

    name: Literal["realnvp", "glow", "spline"]
    couplings: Count
    hidden: Count
    depth: Count
    activation: Literal["relu", "silu", "tanh"]
    elementwise: Annotated[Affine | Spline, Field(discriminator="name")]
    mixing: Literal["alternate", "random", "lu"]

    @model_validator(mode="after")
    def _the_name_says_what_it_is(self) -> Self:
        if self.elementwise.name == "spline":
            fitting = "spline"
        else:
            fitting = "glow" if self.mixing == "lu" else "realnvp"
        if self.name != fitting:
            raise ValueError(
                f"{self.elementwise.name} couplings with mixing={self.mixing} are no {self.name}; "
                f"use model={fitting}"
            )
        return self


class AffineFlow(Section):
    name: Literal["affine"]


class FFJORD(Section):
    name: Literal["ffjord"]
    field: Literal["concatsquash", "time_mlp"]
    width: Count
    depth: Count
    activation: Literal["tanh", "softplus", "silu", "gelu"]
    divergence: Literal["auto", "exact", "hutchinson"]
    probes: Count | None
    noise: Literal["rademacher", "gaussian"] | None


Model = Annotated[CouplingStack | AffineFlow | FFJORD, Field(discriminator="name")]


# --- solver and regularization (continuous flows only) ------------------------------------------


class NoSolver(Section):
    name: Literal["none"]


class Adaptive(Section):
    """A solver that chooses its steps by its tolerances."""

    name: Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"]
    rtol: Positive
    atol: Positive
    norm: Literal["rms", "max"]
    max_steps: Count
    dtype: Dtype | None
    adjoint: bool
    adjoint_rtol: Positive | None
    adjoint_atol: Positive | None
    adjoint_seminorm: bool | None

    @model_validator(mode="after")
    def _adjoint_settings_need_an_adjoint(self) -> Self:
        if not self.adjoint:
            for key in ("adjoint_rtol", "adjoint_atol", "adjoint_seminorm"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} has no effect without adjoint=true")
        return self


class FixedStep(Section):
    """A solver that takes equal steps, blind to its error."""

    name: Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams"]
    step_size: float = Field(ge=1e-4, le=1)
    dtype: Dtype | None
    adjoint: bool


class Implicit(Section):
    """A fixed-step solver that iterates each step until it meets its tolerances."""

    name: Literal["implicit_adams"]
    step_size: float = Field(ge=1e-4, le=1)
    rtol: Positive
    atol: Positive
    dtype: Dtype | None
    adjoint: bool


Solver = Annotated[NoSolver | Adaptive | FixedStep | Implicit, Field(discriminator="name")]


class Regularization(Section):
    kinetic: NotNegative
    jacobian: NotNegative


# --- objective and optimization -----------------------------------------------------------------


class MaximumLikelihood(Section):
    name: Literal["maximum_likelihood"]


class FlowMatching(Section):
    name: Literal["flow_matching"]
    coupling: Literal["independent", "optimal_transport"]
    path: Literal["linear", "variance_preserving"]
    times: Literal["uniform", "stratified", "logit_normal"]


class FlowMatchingThenLikelihood(Section):
    name: Literal["flow_matching_then_likelihood"]
    coupling: Literal["independent", "optimal_transport"]
    path: Literal["linear", "variance_preserving"]
    times: Literal["uniform", "stratified", "logit_normal"]
    switch: float = Field(gt=0, lt=1)
    likelihood_lr: Positive


class Adam(Section):
    name: Literal["adam"]
    lr: Positive
    betas: list[Fraction] = Field(min_length=2, max_length=2)


class AdamW(Section):
    name: Literal["adamw"]
    lr: Positive
    betas: list[Fraction] = Field(min_length=2, max_length=2)
    weight_decay: NotNegative


class Constant(Section):
    name: Literal["constant"]
    warmup: Fraction


class Cosine(Section):
    name: Literal["cosine"]
    warmup: Fraction
    final: float = Field(ge=0, le=1)


class Trainer(Section):
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: Count | None
    max_steps: Count
    max_seconds: Positive | None
    batch_size: Count
    clip: NotNegative
    ema: Fraction
    patience: Count | None
    max_failures: Count
    log_every: Count
    evaluate_every: Count
    figures: bool
    animation: bool


class Evaluation(Section):
    grid: Annotated[int, Field(ge=16, le=4096)]
    batch_size: Count
    solver: Solver


class Config(Section):
    """A whole run."""

    seed: int = Field(ge=0, lt=2**31)
    dtype: Dtype
    resume: Annotated[str, Field(min_length=1)] | None
    init_from: Annotated[str, Field(min_length=1)] | None
    data: Data
    pools: Annotated[Drawn | Split, Field(discriminator="name")]
    model: Model
    objective: Annotated[
        MaximumLikelihood | FlowMatching | FlowMatchingThenLikelihood, Field(discriminator="name")
    ]
    solver: Solver
    regularization: Regularization
    optimizer: Annotated[Adam | AdamW, Field(discriminator="name")]
    scheduler: Annotated[Constant | Cosine, Field(discriminator="name")]
    trainer: Trainer
    evaluation: Evaluation

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        for problem in _without_effect(self):
            raise ValueError(problem)
        return self


def _without_effect(config: Config) -> Iterator[str]:
    """Yield what a config asks for and its model or objective has no use for, or lacks."""
    is_table = isinstance(config.data, Table | Sklearn)
    if is_table != isinstance(config.pools, Split):
        fitting = "split" if is_table else "drawn"
        yield f"pools: {config.data.name} needs pools={fitting}, not {config.pools.name}"
    if is_table and config.trainer.animation:
        yield f"trainer.animation: {config.data.name} has no plane to animate in; leave it false"
    model, objective = config.model.name, config.objective.name
    if isinstance(config.model, FFJORD):
        solves = not isinstance(config.objective, FlowMatching)
        for key, solver, needed in (
            ("solver", config.solver, solves),
            ("evaluation.solver", config.evaluation.solver, True),
        ):
            group = "solver" if key == "solver" else "solver@evaluation.solver"
            if needed and isinstance(solver, NoSolver):
                yield f"{key}: {model} needs a solver; try {group}=dopri5"
        if not solves and not isinstance(config.solver, NoSolver):
            yield (
                f"solver: {objective} solves no ODE in training, {config.solver.name} would have "
                "no effect; leave solver=none"
            )
        if not solves and (config.regularization.kinetic or config.regularization.jacobian):
            yield (
                f"regularization: {objective} integrates no path to penalise; "
                "leave regularization=none"
            )
        return
    for key, solver in (("solver", config.solver), ("evaluation.solver", config.evaluation.solver)):
        group = "solver" if key == "solver" else "solver@evaluation.solver"
        if not isinstance(solver, NoSolver):
            yield (
                f"{key}: {model} solves no ODE, {solver.name} would have no effect; "
                f"leave {group}=none"
            )
    if not isinstance(config.objective, MaximumLikelihood):
        yield f"objective: {model} has no velocity to match; leave objective=maximum_likelihood"
    if config.trainer.animation:
        yield f"trainer.animation: {model} has no time to animate; leave it false"
    if config.regularization.kinetic or config.regularization.jacobian:
        yield f"regularization: {model} has no path to penalise; leave regularization=none"


def validate(raw: dict[str, Any]) -> Config:
    """Check a composed config, given as plain containers.

    Raises:
        ConfigError: with all problems in one message, a line each.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(problem) for problem in error.errors())) from None


# Of unions: pydantic puts them into the path of a problem, model.realnvp.hidden.
TAGS = {
    tag
    for section in Section.__subclasses__()
    if "name" in section.model_fields
    for tag in get_args(section.model_fields["name"].annotation)
}


def _describe(problem: Any) -> str:
    """Say in one line where a value is wrong, what it is and what is allowed."""
    path = problem["loc"]
    if problem["type"] != "union_tag_invalid":
        path = tuple(part for part in path if part not in TAGS)
    where = ".".join(str(part) for part in path)
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key"
        case "missing":
            return f"{where}: missing; it has no default"
        case "union_tag_invalid":
            return (
                f"{where}.name: {problem['ctx']['tag']!r} is unknown; "
                f"choose from {problem['ctx']['expected_tags']}"
            )
        case "value_error":
            return f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
        case "model_attributes_type" | "model_type":
            option = f"; try {path[-1]}@{where}=option" if len(path) > 1 else ""
            return f"{where}: {problem['input']!r} is no group of settings{option}"
        case "string_pattern_mismatch":
            allowed = problem["ctx"]["pattern"].strip("^$")
            return f"{where}: {problem['input']!r} is refused: it should match {allowed}"
    message = re.sub("^(Input|List|String) should", "it should", problem["msg"])
    message = message.replace(" after validation", "")
    return f"{where}: {problem['input']!r} is refused: {message}"
