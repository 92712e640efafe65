"""The group `trainer`: steps, batches, device, intervals."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from flowtrain.config.section import (
    Count,
    Fraction,
    Mark,
    NotNegative,
    OrAuto,
    Positive,
    Rows,
    Section,
)

Threads = Annotated[int, Field(ge=1, le=1024)]


class Trainer(Section):
    """How a run is trained.

    Attributes:
        device: auto, cpu, mps, cuda or cuda:<index>.
        threads: of the CPU in a step; None leaves it to torch.
        max_steps: optimizer steps; "auto" settles it by the training rows; None where time alone
            ends the run.
        max_seconds: budget of time, or None; whichever ends first ends the run.
        batch_size: points drawn for a step.
        compile: whether torch compiles the step, before the first one.
        capture: whether the step is recorded as a CUDA graph, before the first one.
        clip: largest norm of the gradient; 0 turns clipping off.
        ema: decay of an average of the weights, used in evaluation; 0 turns it off.
        patience: stop after so many evaluations without better weights.
        max_failures: failed steps in a row that stop the run.
        log_every: steps between logged scalars.
        evaluate_every: steps between evaluations and checkpoints; "auto" likewise.
        figures: whether densities are drawn.
        draw_every: evaluations between figures.
        animation: whether a continuous flow's figures/flow.gif is written at the end.
        replicas: how many copies, with the seeds seed, seed + 1, ..., are trained in one program.

    >>> from flowtrain.runs.load import open_run
    >>> trainer = open_run(run_folder).config.trainer
    >>> trainer.device, trainer.max_steps, trainer.batch_size
    ('cpu', 6, 32)
    """

    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"), Mark.RESUMABLE, Mark.INCIDENTAL
    ]
    threads: Annotated[Threads | None, Mark.RESUMABLE, Mark.INCIDENTAL]
    max_steps: Annotated[Count | None, OrAuto(), Mark.SETTLED, Mark.RESUMABLE]
    max_seconds: Annotated[Positive | None, Mark.RESUMABLE]
    batch_size: Rows
    compile: Annotated[bool, Mark.RESUMABLE, Mark.INCIDENTAL]
    capture: Annotated[bool, Mark.RESUMABLE, Mark.INCIDENTAL]
    clip: NotNegative
    ema: Fraction
    patience: Annotated[Count | None, Mark.RESUMABLE]
    max_failures: Annotated[Count, Mark.RESUMABLE]
    log_every: Annotated[Count, Mark.RESUMABLE, Mark.INCIDENTAL]
    evaluate_every: Annotated[Count, OrAuto(), Mark.SETTLED, Mark.RESUMABLE]
    figures: Annotated[bool, Mark.RESUMABLE, Mark.INCIDENTAL]
    draw_every: Annotated[Count, Mark.RESUMABLE, Mark.INCIDENTAL]
    animation: Annotated[bool, Mark.RESUMABLE, Mark.INCIDENTAL]
    replicas: Annotated[int, Field(ge=1, le=1000)]

    @model_validator(mode="after")
    def _every_run_ends(self) -> Self:
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("max_steps and max_seconds are both null: a run needs an end")
        return self

    @property
    def budget(self) -> str:
        """What ends a run, in words: its steps, its seconds, or both."""
        parts = []
        if self.max_steps is not None:
            parts.append(f"{self.max_steps:,} steps")
        if self.max_seconds is not None:
            parts.append(f"{self.max_seconds:g} seconds")
        return " or ".join(parts)
