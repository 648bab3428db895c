"""What the package uses of Keras and TensorFlow although they do not document it.

A new version may drop any of it. Here is where to look then.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only used with TensorFlow"
)


def functional():
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Dense(2)(inputs))


def built_adam():
    variable = keras.Variable(np.zeros((2, 3), "float32"))
    adam = keras.optimizers.Adam()
    adam.build([variable])
    return adam, variable


def keras_history():
    model = functional()
    layer, node_index, tensor_index = model.outputs[0]._keras_history
    return layer is model.layers[-1] and node_index == tensor_index == 0


def inbound_nodes():
    model = functional()
    [tensor] = model.layers[-1]._inbound_nodes[0].input_tensors
    return tensor is model.inputs[0]


def nodes_by_depth():
    subclass = type("Subclass", (keras.Model,), {})
    return hasattr(functional(), "_nodes_by_depth") and not hasattr(
        subclass(), "_nodes_by_depth"
    )


def call_in_module_keras():
    owners = (keras.Sequential, type(functional()), layers.Dense, layers.Softmax)
    return all(owner.call.__module__.startswith("keras.") for owner in owners)


def operations():
    x = inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(x + 1.0))
    kinds = [isinstance(operation, keras.Layer) for operation in model.operations]
    return kinds == [True, False, True]


def quantized_and_lora():
    layer = layers.Dense(2)
    layer.build((None, 3))
    before = layer.lora_enabled, layer.quantization_mode
    layer.enable_lora(1)
    return before == (False, None) and layer.lora_enabled


def convolution_op():
    class Zero(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return 0 * inputs

    x = np.ones((1, 2, 2, 1), "float32")
    return not np.any(Zero(1, 3, padding="same")(x))


def seed_generator():
    first, second = (
        layers.Dropout(0.5, seed=1).seed_generator.next() for _ in range(2)
    )
    return np.shape(first) == (2,) and np.array_equal(first, second)


def update_step():
    parameters = inspect.signature(keras.optimizers.Adam.update_step).parameters
    return list(parameters) == ["self", "gradient", "variable", "learning_rate"]


def variable_index():
    adam, variable = built_adam()
    return adam._get_variable_index(variable) == 0


def moments():
    adam, variable = built_adam()
    both = [*adam._momentums, *adam._velocities]
    return [moment.shape for moment in both] == [variable.shape] * 2


def handles():
    adam, variable = built_adam()
    owners = (variable, adam._momentums[0].value)
    return all(str(owner.handle.dtype) == "<dtype: 'resource'>" for owner in owners)


def onednn():
    from tensorflow.python.framework import test_util

    return isinstance(test_util.IsMklEnabled(), bool)


def backpropagation_of_convolutions():
    import tensorflow as tf

    return callable(tf.raw_ops.Conv2DBackpropFilter)


def recording():
    import tensorflow as tf
    from tensorflow.python.eager import record

    x = tf.ones(3)
    with tf.GradientTape() as tape:
        tape.watch(x)
        with record.stop_recording():
            y = 2 * x
        record.record_operation("double", [y], [x], lambda upstream: [5 * upstream])
    return np.array_equal(tape.gradient(y, x), [5] * 3)


def state_mapping():
    variables = [keras.Variable(np.zeros(2)) for _ in range(2)]
    with keras.StatelessScope([(variables[0], np.ones(2))]) as scope:
        variables[1].assign(np.ones(2))
    return len(scope.state_mapping) == 2


def fused_adam():
    import tensorflow as tf

    return callable(tf.raw_ops.ResourceApplyAdam)


def loss_and_updates():
    method = keras.Model.compute_loss_and_updates
    names = [
        *("self", "trainable_variables", "non_trainable_variables"),
        *("metrics_variables", "x", "y", "sample_weight"),
        *("training", "optimizer_variables"),
    ]
    return list(inspect.signature(method).parameters) == names


# What is used, by which module, and a function that returns whether it is still there.
INTERFACES = [
    ("KerasTensor._keras_history", "models/logits.py", keras_history),
    ("Layer._inbound_nodes and Node.input_tensors", "models/logits.py", inbound_nodes),
    ("Functional._nodes_by_depth", "models/logits.py", nodes_by_depth),
    ("`call` in a module named keras", "models/logits.py", call_in_module_keras),
    ("Functional.operations", "models/variants.py", operations),
    (
        "Layer.lora_enabled and Layer.quantization_mode",
        "models/variants.py",
        quantized_and_lora,
    ),
    ("Conv2D.convolution_op", "models/fast_layers.py", convolution_op),
    ("Dropout.seed_generator", "models/fast_layers.py", seed_generator),
    ("StatelessScope.state_mapping", "backend/__init__.py", state_mapping),
    ("Adam.update_step", "training/optimizers.py", update_step),
    ("Optimizer._get_variable_index", "training/optimizers.py", variable_index),
    ("Adam._momentums and Adam._velocities", "training/optimizers.py", moments),
    pytest.param(
        "Variable.handle",
        "backend/tensorflow_kernels.py",
        handles,
        marks=tensorflow_only,
    ),
    pytest.param(
        "test_util.IsMklEnabled", "backend/__init__.py", onednn, marks=tensorflow_only
    ),
    pytest.param(
        "tf.raw_ops.Conv2DBackpropFilter",
        "backend/tensorflow_kernels.py",
        backpropagation_of_convolutions,
        marks=tensorflow_only,
    ),
    pytest.param(
        "tensorflow.python.eager.record",
        "backend/tensorflow_kernels.py",
        recording,
        marks=tensorflow_only,
    ),
    pytest.param(
        "tf.raw_ops.ResourceApplyAdam",
        "backend/tensorflow_kernels.py",
        fused_adam,
        marks=tensorflow_only,
    ),
    pytest.param(
        "Model.compute_loss_and_updates",
        "training/stacked_trainer.py",
        loss_and_updates,
        marks=pytest.mark.skipif(
            keras.backend.backend() != "jax", reason="only used with JAX"
        ),
    ),
]


@pytest.mark.parametrize(("interface", "module", "is_there"), INTERFACES)
def test_private_interface_is_there(interface, module, is_there):
    try:
        there = is_there()
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        there, reason = False, f": {error!r}"
    else:
        reason = ", or differs"
    assert there, (
        f"advens/{module} needs {interface}, which is gone from this version of Keras "
        f"({keras.__version__}) or its backend{reason}"
    )
