"""The words in which a run reports."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.config.schema import Config
from flowtrain.training.report import figure_title, final_report, headline
from flowtrain.training.state import Progress

Tiny = Callable[..., Config]

PAIRED = {"nll_paired/train": 2.45, "nll_paired/val": 2.52, "nll_paired/test": 2.56}
VALIDATED = {"nll/train": 2.4, "nll/val": 2.5, "nll_error/val": 0.02}
KNOWN = {
    **VALIDATED, **PAIRED, "nll/test": 2.55, "nll_error/test": 0.03, "nll/entropy": 2.3,
    "kl/test": 0.25,
    "kl_error/test": 2e-5, "kl_paired/test": 0.26, "kl_paired_error/test": 0.01,
    "kl_reverse/test": 0.3, "kl_reverse_error/test": 0.02, "ess/test": 0.7,
    "mass/test": 1.00001, "inverse_error/test": 3e-5, "inverse_error_rms/test": 2e-6,
}  # fmt: skip
TABLE = {
    **VALIDATED, "nll/test": 2.55, "nll_error/test": 0.03, "nll_gaussian/test": 2.9,
    "nll_kde/test": 2.7, "inverse_error/test": 3e-5, "inverse_error_rms/test": 2e-6,
    **{f"{name}/test": 0.02 for name in ("energy", "mmd", "sliced_w2")},
    **{f"{name}_floor/test": 0.01 for name in ("energy", "mmd", "sliced_w2")},
}  # fmt: skip


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (VALIDATED, "NLL 2.5000 ± 0.0200 nats"),
        ({**VALIDATED, "kl/val": 0.2, "kl_error/val": 0.01}, "NLL 2.5000  KL 0.2000 ± 0.0100 nats"),
        (KNOWN, "NLL 2.5600  KL 0.2500 nats"),
        (TABLE, "NLL 2.5500 ± 0.0300 nats"),
    ],
)
def test_a_headline_says_how_good_a_model_is(metrics: dict[str, float], words: str) -> None:
    assert headline(metrics) == words


def report(
    config: Config, metrics: dict[str, float], *, last: dict[str, float] | None = None, **more: int
) -> list[str]:
    progress = Progress(
        step=1000, seconds=12.3, evaluation_seconds=3.2, drawing_seconds=1.1, best_step=800,
        metrics=metrics, **more,
    )  # fmt: skip
    folder = Path("outputs/demo")
    return list(
        final_report(config, folder, progress, parameters=5092, last=last or {}, closing=7.2)
    )


def test_the_last_report_of_a_known_density(tiny: Tiny) -> None:
    assert report(tiny(), KNOWN) == [
        "realnvp on gaussian_mixture, seed 0, in nats",
        "  KL(data | model)      0.25000 by quadrature, error 2e-05",
        "  KL, paired samples    0.26000 ± 0.01000",
        "  KL(model | data)      0.30000 ± 0.02000, ESS 0.700",
        "  NLL = entropy + KL    2.4500, 2.5200, 2.5600 (train, val, test)",
        "  NLL of test sample    2.5500 ± 0.0300",
        "  entropy of the data   2.3000, the lowest expected NLL",
        "  mass of the model     1.000010 in the window, above 1 by the error of the grid",
        "  inverse error         3.0e-05 max, 2.0e-06 rms",
        "  parameters            5,092",
        "  steps                 1,000 in 12 s, best at 800",
        "  of the seconds        3 for evaluations, 1 for pictures",
        "  to judge and draw     7 s more",
        "  run folder            outputs/demo",
        "  tensorboard --logdir outputs/demo",
        "  its curves, not smoothed: http://localhost:6006/?smoothing=0",
    ]


@pytest.mark.parametrize(
    ("mass", "words"),
    [
        (0.999842, "0.999842 in the window, at most 1"),
        (1.0000001, "1.000000 in the window, at most 1"),
        (1.009, "1.009000 in the window, above 1 by the error of the grid"),
        (1.1, "1.100000 in the window, at most 1"),  # it is no density, as a warning says
    ],
)
def test_a_mass_within_the_error_of_the_grid_is_no_contradiction(
    tiny: Tiny, mass: float, words: str
) -> None:
    assert f"  mass of the model     {words}" in report(tiny(), {**KNOWN, "mass/test": mass})


def test_a_table_is_known_by_its_file(tiny_on_table: Callable[..., Config]) -> None:
    config = tiny_on_table("measured/penguins.csv")
    assert report(config, TABLE)[0] == "realnvp on penguins, seed 0, in nats"
    assert figure_title(config, 6, {}) == "realnvp on penguins, step 6"


def test_the_last_report_says_where_a_model_leaves_the_data(tiny: Tiny) -> None:
    infinite = {k: v for k, v in KNOWN.items() if not k.startswith("kl_reverse")}
    assert "  KL(model | data)      infinite: the data are never there, ESS 0.700" in report(
        tiny(), infinite
    )
    earlier = {k: v for k, v in infinite.items() if k != "ess/test"}
    assert not any("KL(model" in line for line in report(tiny(), earlier))


def test_the_last_report_of_an_energy_has_its_bound_and_its_constant(tiny: Tiny) -> None:
    earlier = {**KNOWN, "elbo/test": 1.5}
    assert "  ELBO, log Z           1.5000, 1.8000 exactly" in report(tiny(), earlier)
    energy = {**earlier, "log_z/test": 1.79, "log_z_error/test": 0.02}
    assert "  log Z by weights      1.7900 ± 0.0200" in report(tiny(), energy)
    posterior = report(tiny(), {**energy, "log_normalizer_error/test": 0.002})
    assert "  ELBO, log Z           1.5000, 1.8000 ± 0.0020" in posterior


def test_the_last_report_of_a_target_has_no_points_and_perhaps_no_constant(tiny: Tiny) -> None:
    bound = {"elbo/test": 1.5, "elbo_error/test": 0.01, "ess/test": 0.9}
    weights = {"log_z/test": 1.6, "log_z_error/test": 0.02}
    checked = {"inverse_error/test": 3e-5, "inverse_error_rms/test": 2e-6}
    assert report(tiny(), {**bound, **weights, **checked})[1:4] == [
        "  ELBO                  1.5000 ± 0.0100, ESS 0.900",
        "  log Z by weights      1.6000 ± 0.0200",
        "  inverse error         3.0e-05 max, 2.0e-06 rms",
    ]
    exact = {"kl_reverse/test": 0.1, "kl_reverse_error/test": 0.01, "nll/entropy": 2.5}
    assert report(tiny(), {**bound, **weights, **exact, **checked})[1:5] == [
        "  KL(model | data)      0.10000 ± 0.01000, ESS 0.900",
        "  ELBO, log Z           1.5000, 1.6000 exactly",
        "  log Z by weights      1.6000 ± 0.0200",
        "  entropy of the data   2.5000, the lowest expected NLL",
    ]


def test_the_last_report_of_points_whose_density_nobody_knows(tiny: Tiny) -> None:
    lines = report(tiny(), {**TABLE, "bits_per_dimension/test": 1.5})
    assert lines[1:9] == [
        "  NLL train, val, test  2.4000, 2.5000, 2.5500",
        "  NLL test, error       2.5500 ± 0.0300",
        "    best Gaussian       2.9000",
        "    kernel density      2.7000, its bandwidth by cross-validation",
        "  bits per dimension    1.5000",
        "  energy distance       0.0200; of the data to itself 0.0100",
        "  squared MMD           0.0200; of the data to itself 0.0100",
        "  sliced W2             0.0200; of the data to itself 0.0100",
    ]


def test_the_solver_s_gap_and_skipped_steps_are_reported_where_there_are_any(tiny: Tiny) -> None:
    lines = report(tiny(), {**KNOWN, "solver_gap/test": -0.002}, skipped=3)
    assert "  solver gap            -2.0e-03: NLL by training - evaluation solver" in lines
    assert lines[-3] == "  skipped steps         3"


def test_what_the_training_solver_claimed_at_the_end_is_reported(tiny: Tiny) -> None:
    last = {"nll/val": 20.0, "solver_gap/val": -137.0}
    assert report(tiny(), {**KNOWN, "solver_gap/test": 0.0}, last=last)[-3] == (
        "  NLL at step 1,000     -117.0000 by the training solver, in truth 20.0000"
    )
    honest = {"nll/val": 2.5, "solver_gap/val": 1e-4}
    assert not any("by the training solver" in line for line in report(tiny(), KNOWN, last=honest))
