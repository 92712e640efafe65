"""The registered flows: a name of the config's model group, and the function that builds it."""

from collections.abc import Callable

from flowtrain.flows.continuous import ContinuousFlow, ffjord
from flowtrain.flows.coupling import realnvp
from flowtrain.flows.flow import Flow, Standardize, Transform

FLOWS: dict[str, Callable[..., Flow]] = {"ffjord": ffjord, "realnvp": realnvp}

__all__ = ["FLOWS", "ContinuousFlow", "Flow", "Standardize", "Transform"]
