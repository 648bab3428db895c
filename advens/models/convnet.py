"""Build a network from its architecture."""

import keras
import numpy as np

from advens.models import own_network
from advens.models.architecture import Architecture, KerasArchitecture


def build(
    architecture: Architecture | KerasArchitecture,
    *,
    seed: int,
    dtype: str = "float32",
    conv: type[keras.layers.Conv2D] = keras.layers.Conv2D,
    dropout: type[keras.layers.Dropout] = keras.layers.Dropout,
) -> keras.Model:
    """Build a network with random weights of its own.

    Args:
        architecture: the network; a `KerasArchitecture` has its own classes of layers,
            in float32.
        seed: determines the initial weights and the dropout masks. Keras's global
            random state is neither read nor changed.
        dtype: a Keras dtype policy, such as `"float32"` or `"mixed_bfloat16"`.
        conv: class of the convolutions, see `fast_layers`.
        dropout: class of the dropout layers, see `fast_layers`.

    Returns:
        A model that maps `(n, h, w, c)` images in [0, 1] to `(n, num_classes)`
        probabilities. Its last layer is a `Softmax`. A `KerasArchitecture` may end
        otherwise.
    """
    if isinstance(architecture, KerasArchitecture):
        return own_network.build(architecture, seed=seed)
    seeds = iter(np.random.SeedSequence(seed).generate_state(64).tolist())

    def glorot() -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    def add_dropout(rate: float) -> None:
        # A seed is drawn for a rate of 0 too: stored members were trained so.
        layer = dropout(rate, seed=next(seeds), dtype=dtype)
        if rate:
            model.add(layer)

    model = keras.Sequential([keras.Input(architecture.input_shape)])
    for filters, rate in zip(
        architecture.blocks, architecture.block_dropout, strict=True
    ):
        for num_filters in filters:
            model.add(
                conv(
                    num_filters,
                    3,
                    padding=architecture.padding,
                    activation="relu",
                    kernel_initializer=glorot(),
                    dtype=dtype,
                )
            )
        model.add(keras.layers.MaxPooling2D(2, dtype=dtype))
        add_dropout(rate)

    def dense(units: int, activation: str | None) -> keras.layers.Dense:
        return keras.layers.Dense(
            units, activation=activation, kernel_initializer=glorot(), dtype=dtype
        )

    model.add(keras.layers.Flatten(dtype=dtype))
    model.add(dense(architecture.units, "relu"))
    add_dropout(architecture.dropout)
    if architecture.logits != "linear":
        model.add(dense(architecture.num_classes, "relu"))
    if architecture.logits != "relu":
        model.add(dense(architecture.num_classes, None))
    model.add(keras.layers.Softmax(dtype="float32"))
    return model
