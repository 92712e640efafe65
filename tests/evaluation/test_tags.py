"""The table of metrics: what evaluation measures is in it, and which way is better."""

from collections.abc import Callable

import pytest
import torch

from flowtrain.config.solver import Adaptive, FixedStep
from flowtrain.data.splits import Split, Splits, sample_splits
from flowtrain.densities.energies import TwoArcs
from flowtrain.evaluation.metrics import evaluate
from flowtrain.evaluation.tags import METRICS, better, board_tag, tagged
from flowtrain.flows.continuous import ContinuousFlow


@pytest.fixture(params=["density", "table"])
def splits(request: pytest.FixtureRequest) -> Splits:
    if request.param == "density":
        target = TwoArcs(thickness=0.4)  # an energy, and a mixture
        seeds = {"train": 0, "val": 1, "test": 2}
        return sample_splits(
            target, train=40, val=40, test=40, seeds=seeds, device=torch.device("cpu"),
            dtype=torch.float64,
        )  # fmt: skip
    rows = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Splits(lambda _: Split(rows, columns=("a", "b"), levels=17))


def test_every_metric_of_an_evaluation_has_a_row(
    splits: Splits, make_ffjord: Callable[..., ContinuousFlow]
) -> None:
    flow = make_ffjord(width=4, depth=1, solver=Adaptive(name="bosh3", rtol=1e-3, atol=1e-3))
    euler = FixedStep(name="euler", step_size=0.5)
    tags = evaluate(flow, splits, training_solver=euler, grid=8, batch_size=100)
    measured = {tag.partition("/")[0] for tag in tags}
    assert measured <= {*METRICS}
    assert "solver_gap" in measured
    assert {tag.partition("/")[2] for tag in tags} <= {"train", "val", "test", "entropy"}
    known = splits.test.density is not None
    unmeasured = {name for name in METRICS if name not in measured}
    others = {"bits_per_dimension", *(n for n in METRICS if n.startswith(("energy", "mmd")))}
    others |= {n for n in METRICS if n.startswith(("sliced_w2", "nll_gaussian", "nll_kde"))}
    others |= {"log_normalizer_error"}  # of a posterior
    of_known = ("kl", "ess", "elbo", "least", "log_", "mass", "nll_paired")
    exact = {n for n in METRICS if n.startswith(of_known)}
    given = {"nll_gaussian_linear", "nll_gaussian_by_class"}  # of points with a condition
    several = {"kl_sem", "nll_sem"}  # of replicas
    assert unmeasured == (others if known else exact | given) | several


def test_errors_floors_and_baselines_have_no_better_way() -> None:
    lower = {name for name in METRICS if better(f"{name}/test") == "lower"}
    assert lower == {
        "kl", "kl_paired", "kl_reverse", "nll", "nll_paired", "bits_per_dimension", "inverse_error",
        "inverse_error_rms", "energy", "mmd", "sliced_w2",
    }  # fmt: skip
    assert {name for name in METRICS if better(f"{name}/test") == "higher"} == {"elbo", "ess"}
    assert better("nll/train") == "lower"
    assert better("lr") is better("") is None


def test_tags_are_names_and_splits() -> None:
    assert tagged({"nll": 2.4, "nll_error": 0.01}, "val") == {"nll/val": 2.4, "nll_error/val": 0.01}
    assert tagged({}, "test") == {}


def test_tensorboard_has_few_groups_and_opens_kl_and_nll() -> None:
    shown = [board_tag(f"{name}/test") for name in METRICS]
    assert len({*shown}) == len(METRICS)
    logged = [
        "figures/density",
        "loss",
        "lr",
        "grad_norm",
        "nfe/forward",
        "speed/steps_per_second",
        "nll/batch",
    ]
    groups = {tag.partition("/")[0] for tag in [*shown, *map(board_tag, logged)]}
    assert sorted(groups) == ["kl", "nll", "pictures", "samples", "training", "verification"]
    assert [tag for tag in shown if tag.startswith("kl/")] == ["kl/test"]
