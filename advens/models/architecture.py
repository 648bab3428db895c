"""Classifiers as data. Nothing here needs Keras."""

import dataclasses
from typing import Literal

from advens.checks import check_choices

Logits = Literal["relu", "linear", "dense"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A convolutional classifier in the manner of Tables 1 and 3.

    Attributes:
        input_shape: `(h, w, c)`.
        blocks: filters of the 3x3 ReLU convolutions of each block; a 2x2 max pooling
            ends a block.
        block_dropout: dropout rate after each block; 0 for none.
        units: width of the fully connected ReLU layer.
        padding: `"valid"` or `"same"`, of every convolution.
        dropout: dropout rate after the fully connected layer.
        logits: what stands under the softmax (docs/protocol.md, point 5): `"relu"`, a
            Dense layer with ReLU; `"linear"`, one without; `"dense"`, a Dense layer
            with ReLU and a second one on top.
        num_classes: number of classes.
    """

    input_shape: tuple[int, int, int]
    blocks: tuple[tuple[int, ...], ...]
    block_dropout: tuple[float, ...]
    units: int
    padding: str
    dropout: float = 0.5
    logits: Logits = "relu"
    num_classes: int = 10

    def __post_init__(self) -> None:
        check_choices(self, logits=Logits)
        if len(self.block_dropout) != len(self.blocks):
            raise ValueError(
                "`block_dropout` must have one rate per block. Received: "
                f"{len(self.block_dropout)} rates for {len(self.blocks)} blocks"
            )


@dataclasses.dataclass(frozen=True)
class KerasArchitecture:
    """A classifier of Keras's own layers, as Keras writes it.

    Attributes:
        config: its config as JSON, without weights; see `models.own_network`.
    """

    config: str


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """The network of a user.

    Attributes:
        name: the function that builds it, `"module:function"`.
        architecture: what the function returns.
    """

    name: str
    architecture: KerasArchitecture
