"""Notice that a model computes otherwise than it did, but for its weights' values."""

import operator
from collections.abc import Collection, Mapping
from typing import Any

import keras
from keras import ops

# What building, calling, compiling and fitting set, and no answer depends on.
_BOOKKEEPING = frozenset(
    (
        *("built", "compiled", "history", "loss", "optimizer", "jit_compile"),
        *("train_function", "test_function", "predict_function"),
        *("stop_training", "stop_evaluating", "stop_predicting"),
        *("steps_per_execution", "unrolled_steps_per_execution"),
        *("auto_scale_loss", "_called", "_path", "_parent_path", "_build_shapes_dict"),
        *("_compile_config", "_compile_loss", "_compile_metrics", "_loss_tracker"),
        *("_compiled_trainable_state", "_compute_loss_has_training_arg"),
        *("_eval_epoch_iterator", "_initial_epoch", "_jax_state", "_jax_state_synced"),
        *("_jit_compile", "_run_eagerly", "_distributed_dataset"),
        *("_distribute_strategy", "_distribute_reduction_method"),
    )
)


class Snapshot:
    """The layers of a model and what their attributes held, by identity.

    A compiled program reads the values of variables at each call. All else that a layer
    holds is a part of the program: its activation, whether it is quantized, the mean of
    a `Normalization`, a number that a layer of the user's own holds.

    Args:
        model: the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._layers = list(model._flatten_layers())
        self._attributes = [vars(layer).copy() for layer in self._layers]

    def is_current(self) -> bool:
        """Return whether the model still computes the same from its variables."""
        layers = list(self._model._flatten_layers())
        return _same(layers, self._layers) and not any(
            map(_differ, self._attributes, map(vars, layers))
        )


def _differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if old.keys() == new.keys() and _same(old.values(), new.values()):
        return False
    return any(
        old.get(name) is not new.get(name) and not _is_symbolic(new.get(name))
        for name in (old.keys() | new.keys()) - _BOOKKEEPING
    )


def _same(old: Collection[Any], new: Collection[Any]) -> bool:
    return len(old) == len(new) and all(map(operator.is_, old, new))


def _is_symbolic(value: object) -> bool:
    """Return whether a value holds a tensor without a value.

    A layer may keep what it computed last. While its model is compiled, that is such a
    tensor.
    """
    return any(map(_has_no_value, keras.tree.flatten(value)))


def _has_no_value(value: object) -> bool:
    if not ops.is_tensor(value):
        return isinstance(value, keras.KerasTensor)
    try:
        ops.convert_to_numpy(value)
    except (TypeError, NotImplementedError):
        return True
    return False
