"""How the networks of all flows begin: first layers wide, last layers at zero."""

import torch
from torch import nn


@torch.no_grad()
def scale_first_layer(layer: nn.Linear) -> None:
    """Draw a network's first layer wider than torch does: three times where one or two enter.

    So its units bend within the range of whitened coordinates, not far outside (measured on
    pinwheel: RealNVP 2,000 steps KL 0.029 instead of 0.128, FFJORD in half the steps). Of many
    coordinates at once such units would learn the rows of a table by heart: from 18 on the layer
    is torch's own.

    >>> layer = torch.nn.Linear(2, 8)
    >>> before = layer.weight.detach().clone()
    >>> scale_first_layer(layer)
    >>> torch.equal(layer.weight, 3 * before)
    True
    """
    gain = min(max(3.0 * (2.0 / layer.in_features) ** 0.5, 1.0), 3.0)
    layer.weight.mul_(gain)
    layer.bias.mul_(gain)


def zero_init(*layers: nn.Module) -> None:
    """Set a network's last layers to zero: a coupling starts as the identity, a field at rest.

    >>> layer = torch.nn.Linear(2, 8)
    >>> zero_init(layer)
    >>> layer(torch.ones(1, 2)).count_nonzero().item()
    0
    """
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
