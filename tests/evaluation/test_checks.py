"""What makes the metrics of a run doubtful."""

import math

import pytest

from flowtrain.evaluation.checks import kl_is_negative, of_several, warnings_about

SOUND = {
    "nll/test": 2.5, "kl/test": 0.1, "kl_error/test": 0.001, "mass/test": 1.0,
    "kl_paired/test": 0.09, "kl_paired_error/test": 0.01,
    "solver_gap/val": 0.001, "solver_gap/test": -0.001,
    "nll_gaussian/test": 2.9, "nll_kde/test": 2.6,
}  # fmt: skip


def test_sound_metrics_raise_no_doubt() -> None:
    assert not list(warnings_about(SOUND))
    assert not list(warnings_about({"nll/train": 2.5, "nll/val": 2.6}))


def test_a_likelihood_that_beats_the_entropy_raises_a_doubt() -> None:
    metrics = {"kl/test": -0.2, "kl_error/test": 0.001, "mass/test": 1.0}
    assert list(warnings_about(metrics)) == [
        "KL is -0.2000, below zero: this likelihood is wrong, not good"
    ]


@pytest.mark.parametrize(
    ("kl", "error", "negative"),
    [
        (-0.2, 0.001, True),
        (-0.2, 0.1, False),
        (-0.31, 0.1, True),
        (-9e-4, 0.0, False),
        (-math.inf, math.nan, True),
    ],
)
def test_kl_is_negative_beyond_three_errors(kl: float, error: float, negative: bool) -> None:
    assert kl_is_negative({"kl/test": kl, "kl_error/test": error}) == negative


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kl/test": -0.01}, "KL is -0.0100, below zero"),
        ({"kl/test": 2.0, "kl_paired/test": 0.1}, "has a hole where the data are rare"),
        (
            {"kl/test": 0.74, "kl_error/test": 0.19, "kl_paired/test": 0.004},
            "has a hole where the data are rare; try model.base=student_t",
        ),
        ({"solver_gap/test": 0.02}, "the training solver reads NLL +0.0200 nats off"),
        ({"solver_gap/test": -0.02}, "the training solver reads NLL -0.0200 nats off"),
        (
            {"nll/test": 2.7, "nll_error/test": 0.05},
            "a kernel density estimate beats this flow on held-out points: NLL 2.6000 against "
            "2.7000 ± 0.0500 nats: try a lower optimizer.lr",
        ),
        ({"nll/test": 3.5, "nll_gaussian/test": 2.4}, "the best Gaussian beats this flow"),
        (
            {"nll/test": 3.2, "nll/train": 3.1, "nll_error/test": 0.05},
            "a kernel density estimate beats this flow on held-out points: NLL 2.6000 against "
            "3.2000 ± 0.0500 nats: it fits its training points no better: try another or a larger",
        ),
        ({"mass/test": 1.1}, "the model's density integrates to 1.1000: it is no density"),
        ({"mass/test": 0.95}, "5.0% of the model's mass lies outside the data's window"),
    ],
)
def test_each_doubt_has_its_words(changes: dict[str, float], words: str) -> None:
    found = list(warnings_about(SOUND | changes))
    assert len(found) == 1
    assert words in found[0]


def test_a_hole_in_a_model_of_heavy_tails_has_another_remedy() -> None:
    (line,) = warnings_about(SOUND | {"kl/test": 2.0}, base="student_t")
    assert line.endswith("the data are rare; try another seed or model=spline")


def test_the_gap_on_the_validation_split_counts_where_there_is_no_other() -> None:
    assert "exploits its solver" in next(warnings_about({"solver_gap/val": 0.02}))
    assert not list(warnings_about({"solver_gap/val": 0.02, "solver_gap/test": 0.0}))


def test_a_baseline_that_is_better_by_less_than_the_error_does_not_beat_the_flow() -> None:
    assert not list(warnings_about(SOUND | {"nll/test": 2.7, "nll_error/test": 0.11}))


def test_an_untrained_flow_is_told_first() -> None:
    found = list(warnings_about(SOUND | {"nll/test": 3.5}, untrained=True))
    assert found[0].startswith("no evaluation was better than the untrained flow")
    assert len(found) == 2


def test_a_warning_about_many_runs_is_told_once() -> None:
    few = [(f"replica-{number}", f"{number}.5% of the mass") for number in range(5)]
    other = ("replica-0", "KL is -0.1000, below zero")
    assert [*of_several([*few, other])] == [f"{name}: {line}" for name, line in [*few, other]]
    many = [*few, ("replica-5", "17% of the mass"), other]
    assert [*of_several(many)] == [
        "replica-0: 0.5% of the mass; likewise 5 more runs",
        "replica-0: KL is -0.1000, below zero",
    ]
