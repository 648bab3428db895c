"""The paper's networks, Tables 1 and 3, and the ten mixed variants of each."""

import dataclasses
from typing import Any, Final, Literal

import keras
import numpy as np

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
        if self.logits not in ("relu", "linear", "dense"):
            raise ValueError(
                "`logits` must be 'relu', 'linear' or 'dense'. "
                f"Received: logits={self.logits!r}"
            )
        if len(self.block_dropout) != len(self.blocks):
            raise ValueError(
                "`block_dropout` must have one rate per block. Received: "
                f"{len(self.block_dropout)} rates for {len(self.blocks)} blocks"
            )


TABLE1: Final = Architecture(
    input_shape=(28, 28, 1),
    blocks=((32, 32),),
    block_dropout=(0.0,),
    units=128,
    padding="valid",  # docs/protocol.md, point 4
)
TABLE3: Final = Architecture(
    input_shape=(32, 32, 3),
    blocks=((32, 32), (64, 64), (128, 128)),
    block_dropout=(0.2, 0.3, 0.4),
    units=512,
    padding="same",  # docs/protocol.md, point 4
)

# Section 3 (ii); docs/protocol.md, point 7: the base network, extra filters in one
# block, or one extra convolution in one block.
MIXED_BLOCKS: Final = {
    TABLE1: (
        ((32, 32),),
        ((40, 32),),
        ((32, 40),),
        ((40, 40),),
        ((48, 32),),
        ((32, 48),),
        ((48, 48),),
        ((32, 32, 32),),
        ((32, 32, 40),),
        ((40, 32, 32),),
    ),
    TABLE3: (
        ((32, 32), (64, 64), (128, 128)),
        ((40, 40), (64, 64), (128, 128)),
        ((48, 48), (64, 64), (128, 128)),
        ((32, 32), (80, 80), (128, 128)),
        ((32, 32), (96, 96), (128, 128)),
        ((32, 32), (64, 64), (160, 160)),
        ((32, 32), (64, 64), (192, 192)),
        ((32, 32, 32), (64, 64), (128, 128)),
        ((32, 32), (64, 64, 64), (128, 128)),
        ((32, 32), (64, 64), (128, 128, 128)),
    ),
}

_BASE: Final = {"digits": TABLE1, "mnist": TABLE1, "cifar10": TABLE3}


def base(dataset: str, *, logits: Logits = "relu") -> Architecture:
    """Return the paper's network for a data set: Table 1 or Table 3.

    Raises:
        ValueError: if the paper has none for it.
    """
    if dataset not in _BASE:
        raise ValueError(
            f"`dataset` must be one of {', '.join(_BASE)}. Received: {dataset!r}"
        )
    return dataclasses.replace(_BASE[dataset], logits=logits)


def mixed(dataset: str, index: int, *, logits: Logits = "relu") -> Architecture:
    """Return the mixed variant of member `index`; an eleventh member starts over."""
    network = base(dataset, logits=logits)
    variants = MIXED_BLOCKS[_BASE[dataset]]
    return dataclasses.replace(network, blocks=variants[index % len(variants)])


def build(
    architecture: Architecture,
    *,
    seed: int,
    dtype: str = "float32",
    conv: type[keras.layers.Conv2D] = keras.layers.Conv2D,
    dropout: type[keras.layers.Dropout] = keras.layers.Dropout,
) -> keras.Sequential:
    """Build a network with its own random weights.

    Args:
        architecture: which network.
        seed: determines the initial weights and the dropout masks. Keras's global
            random state is neither read nor changed.
        dtype: a Keras dtype policy, e.g. `"float32"` or `"mixed_bfloat16"`.
        conv: class of the convolutions, which may compute them in a way of its own.
        dropout: class of the dropout layers, likewise.

    Returns:
        A `keras.Sequential` that maps `(n, h, w, c)` images in [0, 1] to
        `(n, num_classes)` probabilities. Its last layer is a `Softmax`.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(64).tolist())

    def weights() -> dict[str, Any]:
        return {
            "kernel_initializer": keras.initializers.GlorotUniform(seed=next(seeds)),
            "dtype": dtype,
        }

    def drop(rate: float) -> list[keras.Layer]:
        return [dropout(rate, seed=next(seeds), dtype=dtype)] * (rate > 0)

    layers: list[keras.Layer] = [keras.Input(architecture.input_shape)]
    for filters, rate in zip(
        architecture.blocks, architecture.block_dropout, strict=True
    ):
        for num_filters in filters:
            layers.append(
                conv(
                    num_filters,
                    3,
                    padding=architecture.padding,
                    activation="relu",
                    **weights(),
                )
            )
        layers += [keras.layers.MaxPooling2D(2, dtype=dtype), *drop(rate)]
    layers += [
        keras.layers.Flatten(dtype=dtype),
        keras.layers.Dense(architecture.units, activation="relu", **weights()),
        *drop(architecture.dropout),
    ]
    if architecture.logits != "linear":
        layers.append(
            keras.layers.Dense(architecture.num_classes, activation="relu", **weights())
        )
    if architecture.logits != "relu":
        layers.append(keras.layers.Dense(architecture.num_classes, **weights()))
    layers.append(keras.layers.Softmax(dtype="float32"))
    return keras.Sequential(layers)
