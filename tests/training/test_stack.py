"""Stacked flows take the very steps that each would take alone, whatever they are made of."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowtrain.config.model import Model
from flowtrain.config.schema import Config
from flowtrain.config.section import names, options
from flowtrain.runs.folder import RunFolder
from flowtrain.training.replicas import replica_config
from flowtrain.training.run import Run, build_run
from flowtrain.training.stack import Stack
from flowtrain.training.step import train_step
from flowtrain.training.together import backward_of, train_steps
from flowtrain.training.tracking import Tracker
from flowtrain.training.weights import Weights

STACKABLE = sorted(
    name
    for section in options(Model)
    if issubclass(section, Model) and section.stackable and not section.continuous
    for name in names(section)
)
MATCHING = ("objective=flow_matching", "solver=none")
KINDS = {
    **{model: (model, ()) for model in STACKABLE},
    "permuted, averaged": ("realnvp", ("model.mixing=random", "trainer.ema=0.9")),
    "heavy-tailed base": ("realnvp", ("model.base=student_t", "optimizer=adam")),
    "mixture as base": ("spline", ("model.base=mixture",)),
    "decorrelated": ("glow", ("model.whitening=covariance",)),
    "bent": ("realnvp", ("model.whitening=johnson",)),
    "flow matching": ("ffjord", MATCHING),
    "flow matching by samples": (
        "ffjord",
        (
            *MATCHING, "objective.targets=sample",
            "objective.coupling=optimal_transport", "objective.times=logit_normal",
            "model.field=time_mlp",
        ),
    ),
}  # fmt: skip


def test_every_stack_of_couplings_is_stackable() -> None:
    assert STACKABLE == ["affine", "glow", "realnvp", "spline"]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_together_are_those_of_each_alone(
    tiny: Callable[..., Config], tmp_path: Path, kind: str
) -> None:
    model, overrides = KINDS[kind]
    config = tiny("dtype=float64", "seed=5", "trainer.log_every=1000", *overrides, model=model)

    def build() -> list[Run]:
        return [build_run(replica_config(config, n), RunFolder(tmp_path)) for n in range(3)]

    alone, together = build(), build()
    start = [run.weights.vector.clone() for run in alone]
    backward = backward_of(together, capture=False)
    with Tracker(RunFolder(tmp_path), step=-1, evaluated=-1, logger=config.logger) as tracker:
        for _ in range(3):
            for run in alone:
                train_step(run, tracker)
            train_steps(together, [tracker] * 3, backward)
    for own, other, before in zip(alone, together, start, strict=True):
        torch.testing.assert_close(other.weights.vector, own.weights.vector, rtol=0, atol=1e-9)
        assert (own.weights.vector - before).abs().max() > 1e-3
        assert torch.equal(other.state.generator.get_state(), own.state.generator.get_state())
        if own.state.average is not None:
            for a, b in zip(
                own.state.eval_flow.parameters(), other.state.eval_flow.parameters(), strict=True
            ):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert not torch.allclose(alone[0].weights.vector, alone[1].weights.vector, atol=1e-3)


def test_what_is_not_a_number_stays_with_its_flow() -> None:
    layers = [torch.nn.Linear(2, 1) for _ in range(2)]
    x = torch.tensor([[[1.0, 2.0]], [[torch.nan, 2.0]]])
    stack = Stack([Weights(layer) for layer in layers])
    losses = stack.backward(lambda layer, x: layer(x).square().mean(), x)
    assert losses.isfinite().tolist() == [True, False]
    assert layers[0].weight.grad is not None
    assert layers[0].weight.grad.isfinite().all()
