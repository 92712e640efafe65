"""The smoothed loss and the speed that the terminal shows."""

import pytest

from flowtrain.training.pace import STEPS, Pace
from flowtrain.training.state import Progress


def test_the_first_loss_counts_whole_and_a_constant_one_stays() -> None:
    pace = Pace()
    for _ in range(3):
        pace.count(2.5, seconds=0.01)
        assert pace.details(Progress(step=1), 10)[1:] == ("loss 2.5", "100 steps/s")


def test_the_average_forgets() -> None:
    pace = Pace()
    for _ in range(10 * STEPS):
        pace.count(100.0, seconds=1.0)
    for _ in range(10 * STEPS):
        pace.count(1.0, seconds=0.5)
    assert pace.details(Progress(step=1), 10)[1:] == ("loss 1.004", "2.0 steps/s")


def test_the_average_begins_anew_with_another_objective() -> None:
    pace = Pace()
    for loss, of in ((0.2, "matching"), (0.2, "matching"), (2.4, "likelihood")):
        pace.count(loss, seconds=0.5, of=of)
    assert pace.details(Progress(step=1), 10)[1:] == ("loss 2.4", "2.0 steps/s")


@pytest.mark.parametrize(
    ("metrics", "told"),
    [({"nll/val": 2.5}, "NLL 2.5000"), ({"nll/val": 2.5, "kl/val": 0.1}, "KL 0.1000")],
)
def test_the_last_evaluation_comes_right_after_the_step(
    metrics: dict[str, float], told: str
) -> None:
    pace = Pace()
    pace.evaluations = 62.0
    pace.count(2.0, seconds=2.0)
    progress = Progress(step=1240, metrics=metrics)
    assert pace.details(progress, 5000) == (
        "step 1,240/5,000", told, "loss 2", "0.5 steps/s", "nfe 62",
    )  # fmt: skip
