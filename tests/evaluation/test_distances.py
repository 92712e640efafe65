"""Two-sample distances against closed forms, explicit loops and scipy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from flowtrain.evaluation import distances
from flowtrain.evaluation.distances import (
    energy_distance,
    mmd,
    sample_distances,
    sliced_wasserstein,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=seeded(seed))


def sliced(x: Tensor, y: Tensor) -> Tensor:
    return sliced_wasserstein(x, y, generator=seeded())


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "energy": energy_distance,
    "mmd": mmd,
    "sliced_w2": sliced,
}


@pytest.mark.parametrize(("n", "m"), [(1, 1), (40, 40), (50, 73)])
@pytest.mark.parametrize("shift", [0.0, 0.5, 1e4])
def test_energy_distance_in_one_dimension_is_scipy_s(n: int, m: int, shift: float) -> None:
    x, y = 1e4 + normal(n, 1), 1e4 + shift + 2 * normal(m, 1, seed=1)
    expected = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert energy_distance(x, y).item() == pytest.approx(expected, abs=1e-8)


def test_energy_distance_is_the_explicit_loop() -> None:
    x, y = normal(30, 3), 0.3 + normal(40, 3, seed=1)

    def mean(a: Tensor, b: Tensor) -> float:
        return float(np.mean([(p - q).norm().item() for p in a for q in b]))

    expected = math.sqrt(2 * mean(x, y) - mean(x, x) - mean(y, y))
    assert energy_distance(x, y).item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (25, 14)])
def test_mmd_is_the_explicit_loop(n: int, m: int) -> None:
    x, y = normal(n, 2), 0.7 + normal(m, 2, seed=1)
    points = [*torch.cat([x, y])]
    apart = sorted((p - q).norm().item() for i, p in enumerate(points) for q in points[:i])
    s = apart[(len(apart) - 1) // 2]

    def k(p: Tensor, q: Tensor) -> float:
        return math.exp(-float((p - q).square().sum()) / (2 * s**2))

    within_x = sum(k(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j)
    within_y = sum(k(p, q) for i, p in enumerate(y) for j, q in enumerate(y) if i != j)
    across = sum(k(p, q) for p in x for q in y)
    expected = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)
    assert mmd(x, y).item() == pytest.approx(expected, abs=1e-12)


def test_mmd_is_unbiased() -> None:
    found = torch.stack(
        [mmd(normal(30, 2, seed), normal(30, 2, 1000 + seed)) for seed in range(400)]
    )
    assert abs(found.mean()) < 4 * found.std() / 20
    assert (found < 0).any()


@pytest.mark.parametrize("shift", [0.0, -2.5])
def test_w2_of_a_shifted_set_is_the_shift(shift: float) -> None:
    x = normal(100, 1)
    y = (x + shift)[torch.randperm(100, generator=seeded())]
    assert sliced(x, y).item() == pytest.approx(abs(shift), abs=1e-12)


def test_w2_of_sets_of_different_sizes_counts_each_point_by_its_share() -> None:
    x, y = torch.tensor([[0.0], [6.0]]).double(), torch.tensor([[0.0], [3.0], [9.0]]).double()
    # Of x half the mass lies at 0 and half at 6, of y a third at each of 0, 3 and 9: what moves is
    # a sixth from 0 to 3, a sixth from 6 to 3 and a third from 6 to 9, each by 3.
    assert sliced(x, y).item() ** 2 == pytest.approx(9 * (1 / 6 + 1 / 6 + 1 / 3), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(6, 10), (7, 5), (12, 4), (1, 9)])
def test_w2_of_different_sizes_is_that_of_repeated_points(n: int, m: int) -> None:
    x, y = normal(n, 2), normal(m, 2, seed=1)
    expected = sliced(x.repeat_interleave(m, 0), y.repeat_interleave(n, 0)).item()
    assert sliced(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_sliced_w2_is_the_explicit_loop_over_directions() -> None:
    x, y = normal(50, 3), 1 + 2 * normal(50, 3, seed=1)
    lines = torch.randn(20, 3, dtype=torch.float64, generator=seeded(5)).numpy()
    squares = [
        np.mean((np.sort(x.numpy() @ unit) - np.sort(y.numpy() @ unit)) ** 2)
        for unit in (line / np.linalg.norm(line) for line in lines)
    ]
    found = sliced_wasserstein(x, y, generator=seeded(5), directions=20)
    assert found.item() == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-12)


@pytest.mark.parametrize("d", [2, 10])
def test_sliced_w2_of_a_shift_is_its_length_over_the_root_of_the_dimension(d: int) -> None:
    x = normal(50, d)  # shifted by 3 along each axis: a length of 3 √d
    found = sliced_wasserstein(x, x + 3, generator=seeded(), directions=20_000)
    assert found.item() == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_set_is_not_apart_from_itself(name: str) -> None:
    x = normal(60, 2)
    same = x[torch.randperm(60, generator=seeded())]
    assert DISTANCES[name](x, same).item() <= 1e-7
    assert DISTANCES[name](x.new_ones(5, 2), x.new_ones(4, 2)).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_symmetric(name: str) -> None:
    x, y = normal(60, 3), 0.2 + normal(45, 3, seed=1)
    assert DISTANCES[name](x, y).item() == pytest.approx(DISTANCES[name](y, x).item(), abs=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(60, 2), 0.2 + normal(45, 2, seed=1)
    whole = DISTANCES[name](x, y).item()
    monkeypatch.setattr("flowtrain.batching.BLOCK", 100)
    monkeypatch.setattr(distances, "BLOCK", 1000)
    assert DISTANCES[name](x, y).item() == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
def test_samples_that_are_nan_are_not_near(name: str) -> None:
    x, y = normal(20, 2), normal(20, 2, seed=1)
    x[3, 1] = math.nan
    assert math.isnan(DISTANCES[name](x, y).item())


# --- samples of a flow --------------------------------------------------------------------------

TAGS = ("energy", "mmd", "sliced_w2")


@pytest.mark.parametrize("d", [2, 16])
def test_the_same_distribution_is_at_the_floor_and_another_is_far_above(d: int) -> None:
    data, same = normal(4000, d), normal(3000, d, seed=1)
    near = sample_distances(same, data, generator=seeded())
    far = sample_distances(same + 0.5, data, generator=seeded())
    assert {*near} == {f"{tag}{floor}" for tag in TAGS for floor in ("", "_floor")}
    for tag in TAGS:
        assert far[f"{tag}_floor"] == near[f"{tag}_floor"]
    for tag in ("energy", "sliced_w2"):
        assert near[f"{tag}"] == pytest.approx(near[f"{tag}_floor"], rel=0.4)
        assert far[f"{tag}"] > 5 * far[f"{tag}_floor"]
    scatter = 2e-3  # of MMD² between 2000 and 2000 points of one distribution
    assert abs(near["mmd"]) < scatter
    assert abs(near["mmd_floor"]) < scatter
    assert far["mmd"] > 20 * scatter


def test_another_distribution_of_the_same_moments_is_told_apart() -> None:
    ring = normal(4000, 2)
    ring = ring / ring.norm(dim=1, keepdim=True) * math.sqrt(2)
    found = sample_distances(normal(4000, 2, seed=1), ring, generator=seeded())
    for tag in TAGS:
        assert found[f"{tag}"] > 3 * abs(found[f"{tag}_floor"])


@pytest.mark.parametrize(("units", "offset"), [((1e-3, 4e5), -3.0), ((1e-300, 1e300), 0.0)])
def test_sample_distances_do_not_depend_on_units(units: tuple[float, float], offset: float) -> None:
    data, samples = normal(300, 2), 0.1 + normal(200, 2, seed=1)
    scale = torch.tensor(units, dtype=torch.float64)
    plain = sample_distances(samples, data, generator=seeded())
    scaled = sample_distances(samples * scale + offset, data * scale + offset, generator=seeded())
    assert scaled == pytest.approx(plain, abs=1e-6)


def test_a_column_that_is_constant_over_the_held_out_rows_leaves_the_distances_finite() -> None:
    data, samples = normal(300, 2), normal(200, 2, seed=1)
    data[:, 1] = 0.3
    found = sample_distances(samples, data, generator=seeded())
    assert all(math.isfinite(value) for value in found.values())
    assert found["energy"] > 3 * found["energy_floor"]


def test_sample_distances_compare_equal_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def spy(x: Tensor, y: Tensor) -> Tensor:
        sizes.append((len(x), len(y)))
        return energy_distance(x, y)

    monkeypatch.setattr(distances, "energy_distance", spy)
    monkeypatch.setattr(distances, "POINTS", 50)
    for n, m in [(30, 400), (400, 81), (400, 400)]:
        sample_distances(normal(n, 2), normal(m, 2, seed=1), generator=seeded())
    assert sizes == [(30, 30)] * 2 + [(40, 40)] * 2 + [(50, 50)] * 2


def test_sample_distances_repeat_with_their_generator_and_leave_the_global_one() -> None:
    data, samples = normal(300, 2), normal(200, 2, seed=1).float().requires_grad_()
    state = torch.get_rng_state()
    first, again, other = (
        sample_distances(samples, data, generator=seeded(seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert torch.equal(state, torch.get_rng_state())
