"""The group `evaluation`: how the reported figures are computed."""

from typing import Annotated

from pydantic import Field

from flowtrain.config.section import Mark, OneOf, OrAuto, Rows, Section
from flowtrain.config.solver import Solver


class Evaluation(Section):
    """How the reported figures are computed.

    Attributes:
        grid: quadrature nodes per axis.
        batch_size: rows evaluated at a time; "auto" settles it by the width of a row.
        solver: of a continuous flow; `NoSolver` for others.

    >>> Evaluation(grid=256, batch_size=4096, solver={"name": "none"}).solver
    NoSolver(name='none')
    """

    grid: Annotated[int, Field(ge=16, le=4096), Mark.RESUMABLE]
    batch_size: Annotated[Rows, OrAuto(), Mark.SETTLED, Mark.RESUMABLE, Mark.INCIDENTAL]
    solver: Annotated[Solver, OneOf()]
