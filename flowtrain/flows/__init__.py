"""The registered flows: a name of the config's model group, and the function that builds it."""

from collections.abc import Callable

from flowtrain.flows.continuous import ContinuousFlow, ffjord
from flowtrain.flows.coupling import coupling_stack
from flowtrain.flows.elementwise import Affine, Elementwise, RationalQuadratic
from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.linear import affine

FLOWS: dict[str, Callable[..., Flow]] = {
    "affine": affine,
    "ffjord": ffjord,
    "glow": coupling_stack,
    "realnvp": coupling_stack,
    "spline": coupling_stack,
}
ELEMENTWISE: dict[str, Callable[..., Elementwise]] = {
    "affine": Affine,
    "spline": RationalQuadratic,
}

__all__ = ["ELEMENTWISE", "FLOWS", "ContinuousFlow", "Flow", "Standardize", "Transform"]
