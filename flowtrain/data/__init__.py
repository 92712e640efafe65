"""Toy laws on R² by name, each with exact log-density and entropy."""

from flowtrain.data.checkerboard import Checkerboard
from flowtrain.data.curves import Moons, Swissroll, TwoSpirals
from flowtrain.data.density import Density
from flowtrain.data.mixtures import EightGaussians, GaussianMixture
from flowtrain.data.pinwheel import Pinwheel
from flowtrain.data.radial import Circles, Rings

DENSITIES: dict[str, type[Density]] = {
    "moons": Moons,
    "circles": Circles,
    "pinwheel": Pinwheel,
    "eight_gaussians": EightGaussians,
    "two_spirals": TwoSpirals,
    "checkerboard": Checkerboard,
    "rings": Rings,
    "swissroll": Swissroll,
    "gaussian_mixture": GaussianMixture,
}

__all__ = [
    "DENSITIES",
    "Checkerboard",
    "Circles",
    "Density",
    "EightGaussians",
    "GaussianMixture",
    "Moons",
    "Pinwheel",
    "Rings",
    "Swissroll",
    "TwoSpirals",
]
