import dataclasses
import random

import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from advens.models.architecture import Architecture
from advens.models.convnet import build
from advens.models.fast_layers import HalfWordDropout, MatmulConv2D

SMALL = Architecture((28, 28, 1), ((32, 32),), (0.0,), 128, "valid")
DEEP = Architecture((32, 32, 3), ((8, 8), (8,), (8,)), (0.2, 0.3, 0.4), 16, "same")


def images(n=8):
    return np.random.default_rng(3).random((n, 28, 28, 1), np.float32)


def run(model, x, **options):
    return ops.convert_to_numpy(model(x, **options))


def assert_same_weights(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        assert_array_equal(a, b)


def test_layers_are_those_of_the_architecture():
    model = build(DEEP, seed=1)
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "MaxPooling2D", "Dropout"]
    head = ["Flatten", "Dense", "Dropout", "Dense", "Softmax"]
    assert kinds == ["Conv2D", *block, *block, *block, *head]
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    # 9 * 3 * 8 + 8, then 3 convolutions of 9 * 8 * 8 + 8; 32 / 2**3 = 4 pixels a side.
    assert model.count_params() == 224 + 3 * 584 + (4 * 4 * 8 * 16 + 16) + 170
    rates = [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert rates == [0.2, 0.3, 0.4, 0.5]


def test_other_classes_of_layers_have_the_same_weights():
    usual = build(DEEP, seed=1)
    ours = build(DEEP, seed=1, conv=MatmulConv2D, dropout=HalfWordDropout)
    assert {type(layer) for layer in ours.layers} >= {MatmulConv2D, HalfWordDropout}
    assert_same_weights(ours, usual)


def test_seed_determines_the_weights():
    keras.utils.set_random_seed(1)
    first = build(SMALL, seed=5)
    keras.utils.set_random_seed(2)
    assert_same_weights(build(SMALL, seed=5), first)
    for a, b in zip(build(SMALL, seed=6).weights, first.weights, strict=True):
        equal = ops.convert_to_numpy(a) == ops.convert_to_numpy(b)
        assert equal.all() if a.name == "bias" else equal.mean() < 0.01


def test_seed_determines_the_dropout_masks():
    def mask(seed):
        model = build(DEEP, seed=seed)
        x = np.ones((1, 1000), np.float32)
        drops = [x for x in model.layers if isinstance(x, keras.layers.Dropout)]
        return [run(layer, x, training=True)[0] > 0 for layer in drops]

    keras.utils.set_random_seed(1)
    first = mask(5)
    keras.utils.set_random_seed(2)
    assert_array_equal(mask(5), first)
    kept = [0.8, 0.7, 0.6, 0.5]
    for masks in (first, mask(6)):
        # 4 standard deviations of a binomial share.
        atol = 4 * np.sqrt(0.25 / 1000)
        assert_allclose(np.mean(masks, axis=1), kept, rtol=0, atol=atol)
    assert all((a != b).any() for a, b in zip(first, mask(6), strict=True))


def test_layers_of_one_shape_start_differently():
    kernels = build(
        dataclasses.replace(SMALL, blocks=((32, 32, 32),)), seed=5
    ).get_weights()[2:6:2]
    assert kernels[0].shape == kernels[1].shape == (3, 3, 32, 32)
    assert (kernels[0] == kernels[1]).mean() < 0.01
    # Glorot and Bengio 2010: uniform within sqrt(6 / (fan_in + fan_out)).
    limit = np.sqrt(6 / (9 * 32 + 9 * 32))
    assert_allclose([kernels[0].min(), kernels[0].max()], [-limit, limit], rtol=2e-3)


def test_global_random_state_is_left_alone():
    def draws(between):
        keras.utils.set_random_seed(9)
        between()
        return [random.random(), np.random.rand(), *run(keras.random.normal, (3,))]

    expected = draws(lambda: None)
    if draws(lambda: None) != expected:
        pytest.skip("in this version of Keras, seeds do not determine what is drawn")
    assert draws(lambda: build(DEEP, seed=5)) == expected


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_a_float32_softmax(dtype):
    model = build(SMALL, seed=5, dtype=dtype)
    *body, last = model.layers
    assert {layer.compute_dtype for layer in body} == {dtype.removeprefix("mixed_")}
    assert last.compute_dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    single = build(SMALL, seed=5)
    assert_same_weights(model, single)
    probs = run(model, images())
    assert probs.dtype == np.float32
    assert_allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-6)
    # A bfloat16 has 8 bits.
    assert_allclose(probs, run(single, images()), rtol=0.05, atol=0)


def test_the_order_in_which_seeds_are_drawn_is_kept():
    # Stored members start from these. A dropout of rate 0 has a seed, too.
    network = Architecture((8, 8, 1), ((2, 3),), (0.0,), 4, "valid", dropout=0.0)
    seeds = np.random.SeedSequence(5).generate_state(6).tolist()
    model = build(network, seed=5)
    drawn = [
        layer.kernel_initializer.seed
        for layer in model.layers
        if hasattr(layer, "kernel_initializer")
    ]
    first, second, _, hidden, _, last = seeds
    assert drawn == [first, second, hidden, last]
