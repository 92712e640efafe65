"""A user's mistake in one message: the nearest names, and what was wrong."""

import pytest

from flowtrain.cli.messages import explain, suggest
from flowtrain.errors import UserError


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("realnpv", ["affine", "realnvp"], "did you mean realnvp?"),
        ("RealNVP", ["affine", "realnvp"], "did you mean realnvp?"),
        (
            "model.layers",
            ["model.base", "model.hidden", "seed"],
            "choose from model.base, model.hidden",
        ),
        ("batch_size", ["trainer.batch_size", "seed"], "did you mean trainer.batch_size?"),
        ("a.epochs", ["a.replicas", "a.steps"], "choose from a.replicas, a.steps"),
        ("rings2", ["rings", "rings1"], "did you mean rings or rings1?"),
        ("x", ["affine", "realnvp"], "choose from affine, realnvp"),
        ("x", [f"key{i}" for i in range(25)], "`flowtrain --cfg job` shows every key"),
    ],
)
def test_the_nearest_names_are_suggested_else_all_or_where_to_look(
    name: str, known: list[str], told: str
) -> None:
    assert suggest(name, known) == told


def test_a_user_error_is_told_whatever_was_raised_around_it() -> None:
    around = RuntimeError("around it")
    around.__cause__ = UserError("the cause")
    assert explain(around) == "the cause"
    assert explain(OSError(28, "No space left on device", "x.pt")) == (
        "x.pt: No space left on device"
    )
