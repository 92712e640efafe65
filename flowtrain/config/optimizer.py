"""The group `optimizer`: how the gradient moves the weights."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from flowtrain.config.section import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    Section,
    require_extra,
)


class Optimizer(Section):
    """The base of the group.

    >>> from flowtrain.training.weights import Weights
    >>> weights = Weights(torch.nn.Linear(2, 1))
    >>> Adam(name="adam", lr=1e-3, betas=[0.9, 0.999]).build(weights).lr
    0.001
    """

    name: str
    lr: Positive


class Adam(Optimizer):
    owner: ClassVar[str] = "flowtrain.training.adam:Adam"
    name: Literal["adam"]
    betas: list[Fraction] = Field(min_length=2, max_length=2)


class Muon(Optimizer):
    owner: ClassVar[str] = "flowtrain.training.muon:Muon"
    name: Literal["muon"]
    betas: list[Fraction] = Field(min_length=2, max_length=2)
    momentum: Fraction


class AdamW(Optimizer):
    owner: ClassVar[str] = "flowtrain.training.adam:Adam"
    name: Literal["adamw"]
    betas: list[Fraction] = Field(min_length=2, max_length=2)
    weight_decay: NotNegative


class Soap(Optimizer):
    owner: ClassVar[str] = "flowtrain.training.soap:Soap"
    name: Literal["soap"]
    betas: list[Fraction] = Field(min_length=2, max_length=2)
    basis_every: Count

    def build(self, *positional: Any, **context: Any) -> Any:
        require_extra("pytorch_optimizer", chosen="optimizer=soap", extra="optim")
        return super().build(*positional, **context)
