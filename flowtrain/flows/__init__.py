"""Models: the contract of every flow, and the transforms they are made of."""

from flowtrain.flows.bases import Base
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.distribution import FlowDistribution
from flowtrain.flows.flow import Flow, Standardize, Transform
from flowtrain.flows.ode import SolverError

__all__ = [
    "Base",
    "ContinuousFlow",
    "Flow",
    "FlowDistribution",
    "SolverError",
    "Standardize",
    "Transform",
]
