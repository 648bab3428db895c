"""Models that compute the same but for their weights: one program serves all."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from advens.models.variants import is_copyable, without_randomness


def first_alike(models: Sequence[keras.Model]) -> list[int | None]:
    """Return for each model the index of the first one that differs only in weights.

    Names do not count either. A model unlike all before it gets its own index; one
    whose config and weights do not tell all that it computes, None.

    Args:
        models: as `logits_model` returns them.
    """
    first: dict[str, int] = {}
    architectures = map(_architecture, models)
    return [
        None if architecture is None else first.setdefault(architecture, index)
        for index, architecture in enumerate(architectures)
    ]


def weights(model: keras.Model) -> list[keras.Variable]:
    """Return a functional model's weights, in an order that is the same for all alike.

    The states of random layers are none of them.
    """
    layers = [part for part in model.operations if isinstance(part, keras.Layer)]
    return [weight for layer in layers for weight in layer.weights]


def _architecture(model: keras.Model) -> str | None:
    """Return all that a model computes but for its weights; None if nobody knows."""
    if not is_copyable(model) or not all(map(_is_plain, model.operations)):
        return None
    config = model.get_config()
    numbers = {part["name"]: i for i, part in enumerate(config["layers"])}
    for part in config["layers"]:
        part["name"] = None
        part["config"] = {**without_randomness(part["config"]), "name": None}
    ends = [{"keras_history": config[f"{end}_layers"]} for end in ("input", "output")]
    return json.dumps(_without_names([config["layers"], ends], numbers))


def _is_plain(operation: keras.Operation) -> bool:
    """Return whether an operation is no model and computes from no other variable."""
    calls = [node.arguments for node in operation._inbound_nodes]
    arguments = keras.tree.flatten([(call.args, call.kwargs) for call in calls])
    return not isinstance(operation, keras.Model) and not any(
        isinstance(argument, keras.Variable) for argument in arguments
    )


def _without_names(config: Any, numbers: Mapping[str, int]) -> Any:
    """Return a config in which tensors name the number of the layer that made them."""
    if isinstance(config, dict):
        return {
            key: [numbers[value[0]], *value[1:]]
            if key == "keras_history"
            else _without_names(value, numbers)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return [_without_names(value, numbers) for value in config]
    return config
