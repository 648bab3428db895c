"""Networks of a user's own functions: as data, and built again from these."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from advens import program
from advens.models.architecture import KerasArchitecture, OwnNetwork
from advens.models.endings import find_ending, is_functional


def own_network(
    path: str, input_shape: tuple[int, ...], num_classes: int
) -> OwnNetwork:
    """Return the network that a user's function builds.

    Only its architecture counts: each member draws weights of its own, whatever weights
    or seeds the function has given to its layers.

    Args:
        path: `"module:function"`. The function is called with the two other arguments
            and returns a Keras model, Sequential or functional, of Keras's own layers.
        input_shape: of an image, `(h, w, c)`.
        num_classes: the number of classes.

    Raises:
        ValueError: if there is no such function, or it does not return such a network.
    """
    function = program.function_of("network", path)
    first, second = (
        _config(path, function, input_shape, num_classes) for _ in range(2)
    )
    if first != second:
        raise ValueError(
            "`network` must name a function that returns the same network at each "
            f"call. Received: network={path!r}, which returned two different ones"
        )
    return OwnNetwork(path, KerasArchitecture(first))


def build(architecture: KerasArchitecture, *, seed: int) -> keras.Model:
    """Build a network with random weights of its own.

    Args:
        architecture: the network.
        seed: determines every seed in the network: of its initial weights and of its
            dropout masks.
    """
    seeds = np.random.default_rng(seed)

    def seeded(part: dict[str, Any]) -> dict[str, Any]:
        if "seed" in part:
            part["seed"] = int(seeds.integers(2**31))
        return part

    config = json.loads(architecture.config, object_hook=seeded)
    return keras.saving.deserialize_keras_object(config)


def _config(
    path: str,
    function: Callable[..., Any],
    input_shape: tuple[int, ...],
    num_classes: int,
) -> str:
    """Return the config of the function's model as JSON, after checking the model."""
    try:
        # Keras counts the names of layers anew in each thread, so that equal networks
        # have equal configs.
        with ThreadPoolExecutor(1) as thread:
            model = thread.submit(function, input_shape, num_classes).result()
    except Exception as error:  # whatever the user's code raises
        raise _wrong(path, f"one that fails ({program.reason(error)})") from error
    if not isinstance(model, keras.Model) or not is_functional(model):
        raise _wrong(path, f"{model!r}, no built Sequential or functional model")
    shapes = f"{model.input_shape} to {model.output_shape}"
    expected = f"{(None, *input_shape)} to {(None, num_classes)}"
    if shapes != expected:
        raise _wrong(path, f"a model from {shapes}, where {expected} is needed")
    if find_ending(model.outputs[0])[0] not in ("softmax", "logits"):
        raise _wrong(path, "a model that ends neither in a softmax nor in logits")
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    for part in _parts(config):
        _check_part(path, part)
    architecture = KerasArchitecture(json.dumps(config))
    try:
        build(architecture, seed=0)
    except Exception as error:  # Keras raises errors with no common base class
        raise _wrong(
            path, f"one that cannot be built again ({program.reason(error)})"
        ) from error
    return architecture.config


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in a config: layers, initializers and what else there is."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from _parts(part)


def _check_part(path: str, part: dict[str, Any]) -> None:
    name: str = part["class_name"]
    config: Any = part.get("config")
    # Keras writes tensors and tuples without a module.
    is_value = name.startswith("__") and name != "__lambda__"
    if not is_value and str(part.get("module")).partition(".")[0] != "keras":
        # A process that trains would not know it.
        name = config if name == "function" else name
        raise _wrong(path, f"one with {name}, which is not Keras's own")
    if name == "DTypePolicy" and config["name"] != "float32":
        raise _wrong(path, f"one that computes in {config['name']}, not float32")
    if isinstance(config, dict) and config.get("trainable") is False:
        raise _wrong(path, f"one whose layer {config['name']!r} is not trainable")


def _wrong(path: str, received: str) -> ValueError:
    return ValueError(
        "`network` must name a function that is called with the shape of an image and "
        "the number of classes, and returns a Keras classifier of these. Received: "
        f"network={path!r}, {received}"
    )
