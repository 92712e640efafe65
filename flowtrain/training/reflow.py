"""Rectified flow: a velocity learned from the ends of another flow's paths, arXiv 2209.03003."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.errors import ConfigError
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow
from flowtrain.progress import doing
from flowtrain.runs.load import open_run
from flowtrain.training.objectives import Scalars


@dataclass(frozen=True)
class Reflow:
    """Regression of a velocity on straight lines between a teacher's base and data points.

    loss = E |f(t, t x + (1 - t) z) - (x - z)|^2 in whitened coordinates, where x is where the
    teacher carries z (algorithm 1 there). Its minimum has the teacher's law and straighter paths,
    so that few steps suffice.

    The points of a step are not looked at, only counted: the pairs are all that is learned from.

    Args:
        base: the pairs' base points, (m, d), in the type and on the device of the student's.
        data: where the teacher carries them, in data coordinates, (m, d), likewise.
        context: of p(x | c), the condition at which it did so, (m, c), likewise.

    >>> from flowtrain import load
    >>> flow, generator = load(ffjord_folder), torch.Generator().manual_seed(0)
    >>> z = flow.sample_base(50, generator)
    >>> loss, _ = Reflow(z, flow.to_data(z).detach())(flow, torch.zeros(8, 2), generator)
    >>> loss.shape, loss.item() > 0
    (torch.Size([]), True)
    """

    base: Tensor
    data: Tensor
    context: Tensor | None = None

    def __call__(
        self, flow: Flow, x: Tensor, generator: torch.Generator, context: Tensor | None = None
    ) -> tuple[Tensor, Scalars]:
        assert isinstance(flow, ContinuousFlow)
        n = len(x)
        chosen = torch.randint(len(self.base), (n,), generator=generator, device=x.device)
        z = self.base[chosen]
        given = None if self.context is None else self.context[chosen]
        white, _ = flow.standardize.inverse(self.data[chosen])
        slices = torch.arange(n, dtype=x.dtype, device=x.device)
        drawn = torch.rand(n, generator=generator, dtype=x.dtype, device=x.device)
        t = (slices + drawn) / n
        line = z + t[:, None] * (white - z)
        residual = flow.velocity(t, line, given) - (white - z)
        return residual.square().sum(-1).mean(), dict


def reflow(*, teacher: str, pairs: int, student: Flow, trusted: Collection[str] = ()) -> Reflow:
    """Open a run and carry base points along its paths, by its evaluation solver.

    The pairs are the teacher's, drawn from seed 0: the same for every run that learns from it. Of
    p(x | c) their conditions are those of training points, drawn alike.

    Args:
        teacher: the folder of a run of a continuous flow.
        pairs: how many.
        student: the flow that is to learn from it.
        trusted: code of the user's own that the teacher may name, as this run does.

    Raises:
        UserError: the folder holds no run, one whose flow has no paths, one of another base,
            dimension or condition, or one of other code.

    >>> from flowtrain import load
    >>> reflow(teacher=str(ffjord_folder), pairs=10, student=load(ffjord_folder)).data.shape
    torch.Size([10, 2])
    """
    run = open_run(Path(teacher), trust_code=trusted)
    if run.members:
        raise ConfigError(
            f"objective.teacher: {teacher} holds replicas; name one of them: "
            f"{run.members[0].folder}"
        )
    if not isinstance(run.flow, ContinuousFlow):
        raise ConfigError(
            f"objective.teacher: {teacher} is a run of {run.config.model.name}, which has no "
            "paths to straighten; name one of a continuous flow"
        )
    if run.config.model.base != "normal":
        raise ConfigError(
            f"objective.teacher: {teacher} has model.base={run.config.model.base}, and its student "
            "begins at the normal law; name one of base=normal"
        )
    if student.dim != run.flow.dim:
        raise ConfigError(
            f"objective.teacher: its points have {run.flow.dim} dimensions, the data {student.dim}"
        )
    if student.condition != run.condition:
        own, asked = (each or "none" for each in (run.condition, student.condition))
        raise ConfigError(
            f"objective.teacher: its condition, {own}, is not this run's, {asked}; both need the "
            "same data and splits"
        )
    generator, context = torch.Generator().manual_seed(0), None
    z = run.flow.sample_base(pairs, generator)
    if run.condition is not None:
        context = run.splits.train.draw_context(pairs, generator)
    with doing("the teacher's pairs"):
        data = in_batches(run.flow.to_data, z, run.config.evaluation.batch_size, context)
    base, data = (each.to(student.device, student.points_dtype) for each in (z, data))
    return Reflow(base, data, None if context is None else context.to(student.device))
