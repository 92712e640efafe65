"""The whole config, and the rules between its groups. Defaults live in conf/."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from flowtrain.config.data import Data
from flowtrain.config.evaluation import Evaluation
from flowtrain.config.logger import Logger
from flowtrain.config.messages import describe
from flowtrain.config.model import EXACT_EVALUATION_UP_TO, FIELDS, Model
from flowtrain.config.objective import Objective
from flowtrain.config.optimizer import Optimizer
from flowtrain.config.regularization import Regularization
from flowtrain.config.scheduler import Scheduler
from flowtrain.config.section import Dtype, Mark, OneOf, Section, Seed
from flowtrain.config.solver import Solver
from flowtrain.config.splits import Splits
from flowtrain.config.trainer import Trainer
from flowtrain.errors import ConfigError

RunFolderName = Annotated[str, Field(min_length=1)]


class Config(Section):
    """A whole run: every group of settings, checked, and the rules between them.

    Its fields have no defaults: those stand in conf/, and the config of a saved run has them all.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config
    >>> config.model.name, config.model.couplings, config.data.name
    ('realnvp', 2, 'pinwheel')
    """

    seed: Annotated[Seed, Mark.INCIDENTAL]
    dtype: Dtype
    resume: Annotated[RunFolderName | None, Mark.INCIDENTAL]
    init_from: RunFolderName | None
    trust_code: Annotated[bool, Mark.INCIDENTAL]
    data: Annotated[Data, OneOf()]
    splits: Annotated[Splits, OneOf()]
    model: Annotated[Model, OneOf()]
    objective: Annotated[Objective, OneOf()]
    solver: Annotated[Solver, OneOf()]
    regularization: Regularization
    optimizer: Annotated[Optimizer, OneOf()]
    scheduler: Annotated[Scheduler, OneOf()]
    trainer: Trainer
    evaluation: Evaluation
    logger: Annotated[Logger, OneOf(), Mark.RESUMABLE, Mark.INCIDENTAL]

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        for problem in _without_effect(self):
            raise ValueError(problem)
        return self

    @property
    def training_solver(self) -> Solver | None:
        """The solver of training, where it may read another likelihood than evaluation's."""
        differs = self.solver.solves and self.solver != self.evaluation.solver
        return self.solver if differs else None

    @property
    def points_dtype(self) -> Dtype:
        """The type of the points: float64 where the whitening is, so that they lose no digit."""
        return self.dtype if self.model.whitening == "columns" else "float64"

    @property
    def own_code(self) -> dict[str, str]:
        """What runs code of the user's own: keys of the config and the "module:name" they name."""
        targets = {
            "data.target": getattr(self.data, "target", None),
            "model.field": getattr(self.model, "field", None),
            "objective.target": getattr(self.objective, "target", None),
        }
        return {
            key: target
            for key, target in targets.items()
            if target is not None and target not in FIELDS
        }


def _without_effect(config: Config) -> Iterator[str]:
    """Yield what a config asks for and its model or objective has no use for, or lacks."""
    data, model, objective = config.data, config.model, config.objective
    if config.splits.name != data.splits:
        yield f"splits: {data.name} needs splits={data.splits}, not {config.splits.name}"
    if config.trust_code and config.resume is None:
        yield "trust_code: only resume runs code that a folder names; leave it false"
    if config.trainer.compile and not model.compiles:
        yield f"trainer.compile: torch cannot compile {model.name}; leave it false"
    if config.trainer.capture and (why := _waits_for_the_cpu(config)) is not None:
        yield f"trainer.capture: a CUDA graph cannot wait for the CPU, and {why} leave it false"
    if config.trainer.animation:
        if not data.on_grid or data.dimensions == 1:
            yield f"trainer.animation: {data.name} has no plane to animate in; leave it false"
        if not model.continuous:
            yield f"trainer.animation: {model.name} has no time to animate; leave it false"
        if data.conditional:
            yield "trainer.animation: it shows one p(x), not p(x | c); leave it false"
    if objective.needs_velocity and not model.continuous:
        yield (
            f"objective: {model.name} has no velocity to match; leave objective=maximum_likelihood"
        )
    if objective.needs_velocity and model.base != "normal":
        yield (
            f"model.base: the paths of {objective.name} begin at a fixed base, {model.base} is "
            "learned; leave model.base=normal, or choose objective=maximum_likelihood"
        )
    if data.splits == "none" and not objective.needs_density:
        yield (
            f"objective: {data.name} has no points that {objective.name} could learn from; choose "
            "objective=reverse_kl"
        )
    if objective.needs_density and not data.known:
        yield (
            f"objective: {objective.name} needs data whose density is known, {data.name} has none; "
            "leave objective=maximum_likelihood"
        )
    if data.conditional:
        yield from _condition_fits(data, model, objective)
    if config.trainer.replicas > 1:
        yield from _replicas_fit(config)
    solves = model.continuous and objective.solves_ode
    idle = f"{objective.name} solves no ODE in training" if model.continuous else None
    yield from _solver_fits("solver", "solver", config.solver, solves, model, idle)
    yield from _solver_fits(
        "evaluation.solver", "solver@evaluation.solver", config.evaluation.solver,
        model.continuous, model, None,
    )  # fmt: skip
    if config.regularization.penalises and not (model.continuous and objective.integrates_path):
        what = f"{objective.name} integrates no path" if model.continuous else None
        what = what or f"{model.name} has no path"
        yield f"regularization: {what} to penalise; leave regularization=none"


def _waits_for_the_cpu(config: Config) -> str | None:
    """Say what in a step waits for the CPU, and what to try instead; None where nothing does."""
    model, objective, solver = config.model, config.objective, config.solver
    if model.continuous and objective.solves_ode and not solver.plain:
        if getattr(solver, "adjoint", False):
            return "an adjoint solve does; try solver.adjoint=false with solver=rk4, or"
        return f"{solver.name} looks at each step before the next; try solver=rk4, or"
    if objective.needs_density:
        return f"{objective.name} draws its samples on the CPU;"
    if getattr(objective, "coupling", None) == "optimal_transport":
        return "coupling=optimal_transport pairs points on the CPU;"
    return None


def _condition_fits(data: Data, model: Model, objective: Objective) -> Iterator[str]:
    if not model.takes_condition:
        yield f"data.condition: this flow of {model.name} learns no p(x | c); try model.flow=nsf"
    paired = getattr(objective, "coupling", None) == "optimal_transport"
    if paired and getattr(data, "interval", None) is not None:
        yield (
            "objective.coupling: optimal_transport pairs points of one condition, and next to no "
            "two have the same number; leave it independent"
        )


def _replicas_fit(config: Config) -> Iterator[str]:
    data, model, objective = config.data, config.model, config.objective
    solves = model.continuous and objective.solves_ode
    why = None
    if config.own_code.keys() & {"model.field", "objective.target"}:
        why = "code of your own is not asked to compute several flows at once"
    elif not (model.stackable and objective.stackable) or solves:
        why = f"{model.name} by {objective.name} cannot be computed for several flows at once"
    elif not data.known:
        why = "each seed splits the rows anew, so that none is held out from all"
    elif data.conditional:
        why = "their mixture takes no condition"
    elif data.splits == "none":
        why = "without points there is no NLL to compare them by"
    elif config.trainer.animation:
        why = "trainer.animation shows a single flow"
    elif config.trainer.compile:
        why = "trainer.compile compiles a single flow"
    elif config.logger.extra is not None:
        why = f"logger={config.logger.name} shows a single run; try logger=tensorboard"
    if why is not None:
        instead = "leave it 1, and train several seeds by -m seed=0,1,2 launcher=joblib"
        yield f"trainer.replicas: {why}; {instead}"


def refuse_idle(config: Config, *, dim: int | None, typed: Sequence[str] = ()) -> None:
    """Refuse what is accepted in a saved run, but would have no effect in a new one.

    Args:
        config: of the new run.
        dim: of its data; None where it is not known yet.
        typed: keys that were named at the command line.

    Raises:
        ConfigError: names the setting.

    >>> from flowtrain.runs.load import open_run
    >>> refuse_idle(open_run(run_folder).config, dim=2)
    """
    if getattr(config.evaluation.solver, "adjoint", False):
        raise ConfigError(
            "evaluation.solver.adjoint: evaluation takes no gradient, it would have no effect; "
            "leave it false"
        )
    estimated = getattr(config.model, "divergence", None) == "hutchinson"
    exact = dim is not None and dim <= EXACT_EVALUATION_UP_TO
    if estimated and exact and not config.objective.solves_ode:
        raise ConfigError(
            f"model.divergence: {config.objective.name} integrates no trace in training, and "
            f"evaluation is exact up to {EXACT_EVALUATION_UP_TO} dimensions: hutchinson would "
            "have no effect; leave it auto"
        )
    drawn = f"data.{getattr(config.data, 'condition', None)}"
    if drawn in typed:
        raise ConfigError(f"{drawn}: it is drawn from data.interval; leave it out")
    if "evaluation.grid" in typed and not config.data.on_grid:
        raise ConfigError(
            f"evaluation.grid: {config.data.name} has no known density on a line or a plane "
            "to integrate; leave it out"
        )


def _solver_fits(
    key: str, group: str, solver: Solver, needed: bool, model: Model, idle: str | None
) -> Iterator[str]:
    if needed and not solver.solves:
        yield f"{key}: {model.name} needs a solver; try {group}=dopri5"
    if not needed and solver.solves:
        why = idle or f"{model.name} solves no ODE"
        yield f"{key}: {why}, {solver.name} would have no effect; leave {group}=none"


def validate(raw: dict[str, Any]) -> Config:
    """Check a composed config, given as plain containers.

    Raises:
        ConfigError: with all problems in one message, a line each.

    >>> from flowtrain.runs.load import open_run
    >>> raw = open_run(run_folder).config.model_dump()
    >>> validate({**raw, "seed": 3}).seed
    3
    >>> validate({**raw, "seed": -1})
    Traceback (most recent call last):
        ...
    flowtrain.errors.ConfigError: seed: -1 is refused: it should be greater than or equal to 0
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(describe(problem) for problem in error.errors())) from None
