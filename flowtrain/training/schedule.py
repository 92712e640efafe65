"""The course of a run: how much of it is done, its phases, and their learning rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowtrain.build import build_density
from flowtrain.config.schema import Config
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow
from flowtrain.training.cuda_graph import CudaGraph
from flowtrain.training.objectives import Objective, ReverseKL, check_objective
from flowtrain.training.state import Progress


@dataclass(frozen=True)
class Phase:
    """A part of a run; each goes through the whole schedule of the learning rate.

    Attributes:
        objective: what it minimises.
        until: the fraction of the run's time at which it ends.
        max_lr: its largest learning rate.
        graph: of the objective's gradient, where it is recorded.

    >>> from flowtrain.training.objectives import MaximumLikelihood
    >>> Phase(MaximumLikelihood(), until=1.0, max_lr=1e-3).max_lr
    0.001
    """

    objective: Objective
    until: float
    max_lr: float
    graph: CudaGraph | None = None

    def at(self, done: float) -> Objective:
        """Return the objective as it is after a fraction of the phase: a target may be annealed."""
        return self.objective.at(done) if isinstance(self.objective, ReverseKL) else self.objective


def build_phases(config: Config, flow: Flow) -> list[Phase]:
    """Build the phases of a run, in their order.

    Raises:
        ConfigError: an objective of the user's own is refused.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> for phase in build_phases(run.config, run.flow):
    ...     print(type(phase.objective).__name__, phase.max_lr)
    FlowMatching 0.02
    MaximumLikelihood 0.01
    """
    phases = []
    for section, until, max_lr in config.objective.phases(config.optimizer.lr):
        settings: dict[str, Any] = {}
        if section.solves_ode and isinstance(flow, ContinuousFlow):
            settings["solver"] = config.solver
        if section.integrates_path and isinstance(flow, ContinuousFlow):
            settings |= {
                "divergence": flow.training_divergence,
                "kinetic": config.regularization.kinetic,
                "jacobian": config.regularization.jacobian,
            }
        if section.needs_teacher:
            settings |= {"student": flow, "trusted": {*config.own_code.values()}}
        if section.needs_density:
            settings["density"] = build_density(config)
        objective = section.build(**settings)
        if "objective.target" in config.own_code:
            check_objective(objective, flow)
        phases.append(Phase(objective, until, max_lr))
    return phases


def progress_fraction(config: Config, progress: Progress, *, ahead: int = 0) -> float:
    """Return how much of a run is done, in [0, 1], by steps or by time, whichever is further.

    Args:
        config: of the run.
        progress: where it stands.
        ahead: steps to add to those taken.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.state import Progress
    >>> config = open_run(run_folder).config
    >>> config.trainer.max_steps, progress_fraction(config, Progress(step=3))
    (6, 0.5)
    """
    done, limits = 0.0, config.trainer
    if limits.max_steps is not None:
        done = config.objective.done(min((progress.step + ahead) / limits.max_steps, 1.0))
    if limits.max_seconds is not None:
        done = max(done, progress.seconds / limits.max_seconds)
    return min(done, 1.0)


def finished(config: Config, progress: Progress) -> bool:
    """Say whether a run has used its steps, its time or its patience.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.state import Progress
    >>> config = open_run(run_folder).config
    >>> finished(config, Progress(step=5)), finished(config, Progress(step=6))
    (False, True)
    """
    patience = config.trainer.patience
    impatient = patience is not None and progress.stale >= patience
    return progress_fraction(config, progress) >= 1 or impatient


def evaluation_is_due(config: Config, progress: Progress) -> bool:
    """Return whether the step that a run has reached asks for an evaluation it has not had.

    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.state import Progress
    >>> config = open_run(run_folder).config  # it evaluates every 3 steps
    >>> [evaluation_is_due(config, Progress(step=n, last_eval_step=3)) for n in (3, 4, 6)]
    [False, False, True]
    """
    at_interval = progress.step % config.trainer.evaluate_every == 0
    return at_interval and progress.last_eval_step < progress.step


def phase_at(phases: Sequence[Phase], done: float) -> tuple[Phase, float]:
    """Return the phase of a run after a fraction `done`, and the fraction of it that is done.

    Args:
        phases: in their order; each ends after the one before it.
        done: of its time, in [0, 1].

    >>> from flowtrain.training.objectives import MaximumLikelihood
    >>> fast = Phase(MaximumLikelihood(), until=0.5, max_lr=1e-2)
    >>> slow = Phase(MaximumLikelihood(), until=1.0, max_lr=1e-3)
    >>> phase, since = phase_at([fast, slow], done=0.75)
    >>> phase.max_lr, since
    (0.001, 0.5)
    """
    since = 0.0
    for phase in phases:
        if done < phase.until:
            return phase, (done - since) / (phase.until - since)
        since = phase.until
    return phases[-1], 1.0
