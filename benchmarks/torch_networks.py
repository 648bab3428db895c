"""The networks of `advens.models.convnet` in PyTorch, with weights from Keras."""

from collections.abc import Sequence

import keras
import torch
from torch import nn

from advens.models.architecture import Architecture


def build(architecture: Architecture) -> nn.Sequential:
    """Build a network that maps `(n, c, h, w)` float32 images to logits."""
    height, width, channels = architecture.input_shape
    layers: list[nn.Module] = []
    in_channels = channels
    for filters, rate in zip(
        architecture.blocks, architecture.block_dropout, strict=True
    ):
        for num_filters in filters:
            conv = nn.Conv2d(in_channels, num_filters, 3, padding=architecture.padding)
            layers += [conv, nn.ReLU()]
            in_channels = num_filters
        layers.append(nn.MaxPool2d(2))
        if rate:
            layers.append(nn.Dropout(rate))
    layers += [nn.Flatten(), nn.LazyLinear(architecture.units), nn.ReLU()]
    if architecture.dropout:
        layers.append(nn.Dropout(architecture.dropout))
    in_features = architecture.units
    if architecture.logits != "linear":
        layers += [nn.Linear(in_features, architecture.num_classes), nn.ReLU()]
        in_features = architecture.num_classes
    if architecture.logits != "relu":
        layers.append(nn.Linear(in_features, architecture.num_classes))

    network = nn.Sequential(*layers)
    # The lazy layer takes its number of inputs from the first call.
    network(torch.zeros(1, channels, height, width))
    return network


def copy_weights(source: keras.Model, network: nn.Module) -> None:
    """Copy the weights of a Keras network into the PyTorch one of its architecture."""
    channels = source.input_shape[-1]
    arrays = []
    for array in source.get_weights():
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
            channels = len(array)
        elif array.ndim == 2:
            # Keras flattens (h, w, c), PyTorch (c, h, w).
            pixels = len(array) // channels
            array = array.reshape(pixels, channels, -1).transpose(2, 1, 0)
            array = array.reshape(len(array), pixels * channels)
            channels = 1
        arrays.append(torch.tensor(array))
    network.load_state_dict(dict(zip(network.state_dict(), arrays, strict=True)))


class Voting(nn.Module):
    """Networks with the weights of Keras's, which vote with their mean probability.

    Its outputs are the logarithm of that mean, up to a constant; those of a single
    network are its logits.
    """

    def __init__(
        self, members: Sequence[keras.Model], architectures: Sequence[Architecture]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(map(build, architectures))
        for source, network in zip(members, self.members, strict=True):
            copy_weights(source, network)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(n, k)` logits of `(n, c, h, w)` images."""
        logits = torch.stack([member(x) for member in self.members])
        if len(logits) == 1:
            return logits[0]
        return torch.logsumexp(torch.log_softmax(logits, dim=-1), dim=0)
