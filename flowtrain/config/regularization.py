"""The group `regularization`: penalties on a continuous flow's path."""

from flowtrain.config.section import NotNegative, Section


class Regularization(Section):
    """Weights of the penalties on a continuous flow's path; 0 is none.

    Attributes:
        kinetic: of the integral of |f|^2 along a path.
        jacobian: of the integral of |df/dz|^2_F.

    >>> Regularization(kinetic=0.01, jacobian=0.0).penalises
    True
    """

    kinetic: NotNegative
    jacobian: NotNegative

    @property
    def penalises(self) -> bool:
        """Whether any weight is above zero."""
        return self.kinetic > 0 or self.jacobian > 0
