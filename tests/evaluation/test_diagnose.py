"""Diagnoses of flows whose faults are known."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowtrain.data.condition import ContextEncoder
from flowtrain.data.condition_column import Category, Number
from flowtrain.data.splits import Split
from flowtrain.densities.mixtures import GaussianMixture
from flowtrain.evaluation.diagnose import classifier_auc, diagnose
from flowtrain.evaluation.diagnosis import DOUBT, Diagnosis
from flowtrain.flows.bases import StudentT
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.linear import ConditionalLinear

KINDS = ("coverage", "base", "classifier", "marginals", "tails", "weights")


def normal(n: int, seed: int, *, std: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def diagnosis(flow: Flow, x: Tensor, *, known: bool = True) -> Diagnosis:
    density = GaussianMixture(
        means=[[0.0, 0.0]], covariances=[[[1.0, 0.0], [0.0, 1.0]]], weights=[1.0]
    )
    return diagnose(
        flow, Split(x), Split(normal(20_000, 7)), columns=("a", "b"),
        density=density if known else None,
        generator=torch.Generator().manual_seed(0), batch_size=5_000,
    )[0]  # fmt: skip


def gaussian(mean: float, std: float) -> Flow:
    return Flow([], Standardize(torch.full((2,), mean), torch.full((2,), std)).double())


def test_the_points_are_held_to_the_base_s_own_law() -> None:
    flow, heavy = gaussian(0.0, 1.0), StudentT(2).double()
    torch.nn.init.constant_(heavy.log_df, math.log(0.2))  # 2 degrees of freedom
    flow.base = heavy
    right = diagnosis(flow, flow.sample(4000, torch.Generator().manual_seed(3)), known=False)
    assert "base" not in off(right)
    assert "base" in off(diagnosis(flow, normal(4000, 3), known=False))


def off(found: Diagnosis) -> set[str]:
    return {words.partition(":")[0] for good, words in found.findings() if not good}


def test_a_flow_that_is_the_law_has_no_faults() -> None:
    found = diagnosis(gaussian(0.0, 1.0), normal(4_000, 3))
    assert [words.partition(":")[0] for _, words in found.findings()] == [*KINDS]
    assert off(found) == set()
    assert found.points == 4_000
    for nominal, real in found.coverage.items():
        assert abs(real - nominal) < 4 * math.sqrt(nominal * (1 - nominal) / 4_000)
    assert found.ess == pytest.approx(1.0)
    assert found.kl_reverse == pytest.approx(0.0, abs=1e-9)


def test_a_flow_that_is_too_wide_is_told_by_everything() -> None:
    found = diagnosis(gaussian(0.0, 1.3), normal(4_000, 1))
    assert off(found) == {*KINDS}
    # The densest half of N(0, 1.3²) holds 1 - 0.5^(1.3²) of N(0, 1).
    assert found.coverage[0.5] == pytest.approx(1 - 0.5 ** (1.3**2), abs=0.03)
    gap, p_value = found.base[0]
    assert gap == pytest.approx(0.064, abs=0.02)  # sup |Φ(1.3 a) - Φ(a)|
    assert p_value < DOUBT


def test_a_shift_shows_in_its_column_alone() -> None:
    mean = torch.tensor([0.3, 0.0], dtype=torch.float64)
    found = diagnosis(Flow([], Standardize(mean, torch.ones_like(mean))), normal(4_000, 1))
    assert {"marginals", "base", "classifier"} <= off(found)
    by_name = {column.name: column for column in found.columns}
    assert by_name["a"].p_value < 1e-6
    assert by_name["b"].p_value > DOUBT
    data, model = by_name["a"].quantiles[0.99]
    assert model - data == pytest.approx(0.3, abs=0.15)


def test_the_least_likely_points_are_named() -> None:
    x = normal(500, 1)
    x[[17, 42]] = torch.tensor([[9.0, 9.0], [-8.0, 0.0]], dtype=torch.float64)
    found = diagnosis(gaussian(0.0, 1.0), x, known=False)
    assert found.worst[:2] == [17, 42]
    assert found.worst_log_prob[0] == pytest.approx(-math.log(2 * math.pi) - 81)
    assert "weights" not in [words.partition(":")[0] for _, words in found.findings()]
    assert json.loads(json.dumps(found.as_json()))["ess"] is None


@pytest.mark.parametrize(("errors", "good"), [(3.5, True), (4.1, False)])
def test_the_classifier_is_as_strict_as_the_other_tests(errors: float, good: bool) -> None:
    found = diagnosis(gaussian(0.0, 1.0), normal(100, 1), known=False)
    found = replace(found, auc=0.5 + 0.01 * errors, auc_floor=0.5, auc_error=0.01)
    assert ("classifier" not in off(found)) == good


def test_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20 test points, there are 19"):
        diagnosis(gaussian(0.0, 1.0), normal(19, 1))


def test_a_classifier_sees_what_no_marginal_shows() -> None:
    together = normal(2_000, 1)[:, :1].repeat(1, 2) + normal(2_000, 2, std=0.3)
    apart = torch.stack([together[:, 0], together[torch.arange(1_999, -1, -1), 1]], 1)
    generator = torch.Generator().manual_seed(0)
    assert classifier_auc(together, apart, generator=generator) > 0.8
    assert 0.45 < classifier_auc(normal(2_000, 3), normal(2_000, 4), generator=generator) < 0.55


def test_a_fault_at_one_condition_is_found_there() -> None:
    condition = ContextEncoder(
        (Category("kind", ("a", "b", "c")), Number("size", mean=0.0, std=1.0, low=-3, high=3))
    )

    def split(n: int, seed: int) -> Split:
        context = condition.draw(n, torch.Generator().manual_seed(seed))
        x = normal(n, seed + 50)
        x[context[:, 1] == 1] *= 1.4  # b is wider than the flow believes
        return Split(x, context=context, condition=condition)

    layer = ConditionalLinear(dim=2, context_dim=4).double()  # still the identity
    flow = Flow([layer], Standardize(torch.zeros(2), torch.ones(2)).double())
    found, _ = diagnose(
        flow, split(3_000, 1), split(6_000, 2), columns=("a", "b"), density=None,
        generator=torch.Generator().manual_seed(0), batch_size=5_000,
    )  # fmt: skip
    by_label = {group.label: group for group in found.by_condition}
    assert [*by_label][:3] == ["kind=a", "kind=b", "kind=c"]
    doubtful = {label for label in [*by_label][:3] if by_label[label].p_value < DOUBT}
    assert doubtful == {"kind=b"}
    assert by_label["kind=a"].coverage[0.5] == pytest.approx(0.5, abs=0.06)
    # The densest half of the normal law holds 1 - 0.5^(1 / 1.4²) of one 1.4 times as wide.
    assert by_label["kind=b"].coverage[0.5] == pytest.approx(1 - 0.5 ** (1.4**-2), abs=0.06)
    wider = 2 * 1.4**2 / 2 + math.log(2 * math.pi)
    assert by_label["kind=b"].nll == pytest.approx(wider, abs=0.2)
    assert "conditions" in off(found)
    (words,) = [w for _, w in found.findings() if w.startswith("conditions")]
    assert words.startswith("conditions: of 6 the worst is kind=b, whose region of ")
