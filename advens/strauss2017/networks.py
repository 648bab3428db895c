"""The paper's networks, Tables 1 and 3, and the ten mixed variants of each."""

import dataclasses
from typing import Final

from advens.models.architecture import Architecture, Logits

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


def base(
    dataset: str,
    *,
    logits: Logits = "relu",
    input_shape: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
) -> Architecture:
    """Return the paper's network for a data set: Table 1 or Table 3.

    Args:
        dataset: name of the data set.
        logits: see `Architecture`.
        input_shape: see `Architecture`; None for that of the paper's images.
        num_classes: see `Architecture`; None for the paper's ten.

    Raises:
        ValueError: if the paper has none for it.
    """
    if dataset not in _BASE:
        raise ValueError(
            f"`dataset` must be one of {', '.join(_BASE)}. Received: {dataset!r}"
        )
    network = dataclasses.replace(_BASE[dataset], logits=logits)
    if input_shape is not None:
        network = dataclasses.replace(network, input_shape=input_shape)
    if num_classes is not None:
        network = dataclasses.replace(network, num_classes=num_classes)
    return network


def mixed(dataset: str, index: int, *, logits: Logits = "relu") -> Architecture:
    """Return the mixed variant of member `index`; an eleventh member starts over."""
    network = base(dataset, logits=logits)
    variants = MIXED_BLOCKS[_BASE[dataset]]
    return dataclasses.replace(network, blocks=variants[index % len(variants)])
