"""What is refused of a density of the user's own, and that no density of the package is."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowtrain.config.data import Data
from flowtrain.config.section import names, options
from flowtrain.densities.check import check_components, check_density
from flowtrain.densities.density import Density

NAMES = [
    name
    for section in options(Data)
    if section.owner.startswith("flowtrain.densities.")
    for name in names(section)
    # The window of the first two is the picture's, as the rest is too wide; the last has 31 axes.
    if name not in ("funnel", "student_t", "logistic_regression")
]


class Own(Density):
    """A standard normal of the user's own, right unless it is told otherwise."""

    def __init__(self) -> None:
        corner = torch.full((2,), 6.0, dtype=torch.float64)
        super().__init__(window=(-corner, corner), resolution=1.0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, dtype=torch.float64, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return -x.square().sum(1) / 2 - math.log(2 * math.pi)


class Short(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return super().sample(n - n % 3, generator)


class Spatial(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 3, dtype=torch.float64, generator=generator)


class SinglePrecision(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return super().sample(n, generator).float()


class Unbounded(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return super().sample(n, generator).index_fill(0, torch.tensor([7]), math.nan)


class GlobalChance(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, dtype=torch.float64)


class HalfGlobalChance(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        signs = 2 * torch.randint(2, (n, 1)) - 1
        return super().sample(n, generator) * signs


class Column(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x)[:, None]


class Total(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x).sum()


class SingleLogProb(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x.float())


class NanAfar(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x).where(x.norm(dim=1) < 5.5, math.nan)


class Spike(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x).where(x[:, 0] < 0, math.inf)


class TwiceTheMass(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + math.log(2)


class HalfTheMass(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) - math.log(2)


class AShareTooMuch(Own):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + math.log(1.02)


class Astray(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        x = super().sample(n, generator)
        return torch.cat([x[: n // 2] + 20, x[n // 2 :]])


class Narrow(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return 0.9 * super().sample(n, generator)


class Wide(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return 1.1 * super().sample(n, generator)


class Moved(Own):
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return 0.5 + super().sample(n, generator)


class Impossible(Own):
    """Half its samples fall where it says that none do."""

    def log_prob(self, x: Tensor) -> Tensor:
        return (super().log_prob(x) + math.log(2)).where(x[:, 0] < 0, -math.inf)


class Many(Density):
    """The standard normal law of 40 dimensions; the entropy is off by what is told."""

    dim = 40

    def __init__(self, off: float) -> None:
        corner = torch.full((40,), 6.0, dtype=torch.float64)
        super().__init__(window=(-corner, corner), resolution=1.0)
        self.off = off

    @property
    def entropy(self) -> float:
        return 20 * math.log(2 * math.pi * math.e) + self.off

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 40, dtype=torch.float64, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return -x.square().sum(1) / 2 - 20 * math.log(2 * math.pi)


def test_where_no_grid_reaches_the_entropy_tells_a_wrong_mass() -> None:
    check_density(Many(off=0.0))
    with pytest.raises(ValueError, match=r"mean of -log_prob is -0\.5\d* nats off the entropy"):
        check_density(Many(off=0.5))


def test_a_density_of_ones_own_that_keeps_the_contract_passes() -> None:
    state = torch.get_rng_state()
    check_density(Own())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_every_density_of_the_package_passes(name: str, default: Callable[[str], Density]) -> None:
    check_density(default(name))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("two_spirals", {"jitter": 0.0}),
        ("eight_gaussians", {"scale": 1e-3}),
        ("checkerboard", {"squares": 3, "side": 50.0}),
        ("pinwheel", {"rate": 0.0, "arms": 1}),
    ],
)
def test_other_parameters_pass_too(
    name: str, changes: dict[str, float], build: Callable[..., Density]
) -> None:
    check_density(build(name, **changes))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Short, r"sample.* must return \(n, 2\) in float64, got \(9999, 2\).* for n = 10000"),
        (Spatial, r"sample.* must return \(n, 2\) in float64, got \(10000, 3\)"),
        (SinglePrecision, r"must return \(n, 2\) in float64, got \(10000, 2\) in torch.float32"),
        (Unbounded, "must return finite points"),
        (GlobalChance, "must take all its chance from the generator"),
        (HalfGlobalChance, "must take all its chance from the generator"),
        (Column, r"log_prob\(x\) must return \(n,\).*, got \(10000, 1\)"),
        (Total, r"log_prob\(x\) must return \(n,\).*, got \(\)"),
        (SingleLogProb, r"must return \(n,\) in the dtype of x, got \(10000,\) in torch.float32"),
        (NanAfar, r"log_prob\(x\) is NaN or infinite on its window"),
        (Spike, r"log_prob\(x\) is NaN or infinite on its samples"),
        (TwiceTheMass, r"integrates to 2\.0000 over the window"),
        (HalfTheMass, r"integrates to 0\.5000 over the window"),
        (AShareTooMuch, r"integrates to 1\.0200 over the window"),
        (Astray, r"50\.0% of the samples lie outside the window"),
        (Narrow, r"do not follow log_prob: .* is -0\.(1[6-9]|2[0-2])\d* nats off the entropy"),
        (Wide, r"do not follow log_prob: .* is \+0\.(1[8-9]|2[0-4])\d* nats off the entropy"),
        (Moved, r"do not follow log_prob: .* is \+0\.2\d* nats off the entropy"),
        (Impossible, "do not follow log_prob"),
    ],
)
def test_a_density_that_breaks_the_contract_is_refused(own: type[Own], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_density(own())


@pytest.mark.parametrize("thing", [None, Own, torch.distributions.Normal(0.0, 1.0)], ids=str)
def test_what_is_no_density_is_refused(thing: object) -> None:
    with pytest.raises(ValueError, match=r"is no density: subclass flowtrain\.densities\."):
        check_density(thing)


class TwoHalves(Own):
    """The normal law as a mixture of itself twice; the first weight is told."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def components(self) -> list[tuple[float, Density]]:
        return [(self.weight, Own()), (0.5, Own())]


def test_components_must_add_up_to_the_density() -> None:
    check_components(Own())  # it has none
    check_components(TwoHalves(0.5))
    with pytest.raises(ValueError, match="the weighted sum of components"):
        check_components(TwoHalves(0.6))
