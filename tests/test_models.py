import dataclasses
import random

import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from advens.models import MIXED_BLOCKS, TABLE1, TABLE3, base, build, mixed

# As the paper prints them; Flatten has no line there.
TABLES = {
    "mnist": [
        "Relu Convolutional 32 filters (3×3)",
        "Relu Convolutional 32 filters (3×3)",
        "Max Pooling 2×2",
        "Relu Fully Connected 128 units",
        "Dropout 0.5",
        "Relu Fully Connected 10 units",
        "Softmax 10 units",
    ],
    "cifar10": [
        "Relu Convolutional 32 filters (3×3)",
        "Relu Convolutional 32 filters (3×3)",
        "Max Pooling 2×2",
        "Dropout 0.2",
        "Relu Convolutional 64 filters (3×3)",
        "Relu Convolutional 64 filters (3×3)",
        "Max Pooling 2×2",
        "Dropout 0.3",
        "Relu Convolutional 128 filters (3×3)",
        "Relu Convolutional 128 filters (3×3)",
        "Max Pooling 2×2",
        "Dropout 0.4",
        "Relu Fully Connected 512 units",
        "Dropout 0.5",
        "Relu Fully Connected 10 units",
        "Softmax 10 units",
    ],
}
INPUTS = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
# By hand, e.g. Table 1: 9 * 32 + 32 + 9 * 32 * 32 + 32 (valid: 28, 26, 24, then 12)
# + 12 * 12 * 32 * 128 + 128 + 128 * 10 + 10.
PARAMETERS = {"mnist": 600_810, "cifar10": 1_341_226}


def line(layer):
    """Describe a layer in the words of the paper's tables."""
    config = layer.get_config()
    kind = type(layer).__name__
    if kind in ("Conv2D", "Dense"):
        activation = config["activation"].replace("linear", "").capitalize()
        if kind == "Dense":
            return f"{activation} Fully Connected {layer.units} units".lstrip()
        assert layer.strides == layer.dilation_rate == (1, 1)
        height, width = layer.kernel_size
        return f"{activation} Convolutional {layer.filters} filters ({height}×{width})"
    if kind == "MaxPooling2D":
        assert layer.strides == layer.pool_size
        return "Max Pooling {}×{}".format(*layer.pool_size)
    return {
        "Dropout": lambda: f"Dropout {layer.rate}",
        "Softmax": lambda: f"Softmax {layer.output.shape[-1]} units",
        "Flatten": lambda: "Flatten",
    }[kind]()


def lines(model):
    return [line(layer) for layer in model.layers if line(layer) != "Flatten"]


def images(dataset, n=8):
    return np.random.default_rng(3).random((n, *INPUTS[dataset]), np.float32)


def run(model, x, **options):
    return ops.convert_to_numpy(model(x, **options))


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("dataset", TABLES)
def test_network_is_the_table(dataset):
    model = build(base(dataset), seed=1)
    assert lines(model) == TABLES[dataset]
    assert model.count_params() == PARAMETERS[dataset]
    assert model.input_shape == (None, *INPUTS[dataset])
    paddings = {x.padding for x in model.layers if isinstance(x, keras.layers.Conv2D)}
    assert paddings == {"valid" if dataset == "mnist" else "same"}
    probs = run(model, images(dataset))
    assert probs.shape == (8, 10)
    assert_allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-6)
    assert probs.min() > 0


def test_digits_has_the_network_of_mnist():
    assert base("digits") == base("mnist") == TABLE1
    assert mixed("digits", 3) == mixed("mnist", 3)
    assert base("cifar10") == TABLE3
    for network in (base, lambda name: mixed(name, 0)):
        with pytest.raises(ValueError, match="one of digits, mnist, cifar10.*'svhn'"):
            network("svhn")


@pytest.mark.parametrize(
    ("logits", "top", "parameters"),
    [
        ("relu", ["Relu Fully Connected 10 units"], 0),
        ("linear", ["Fully Connected 10 units"], 0),
        ("dense", ["Relu Fully Connected 10 units", "Fully Connected 10 units"], 110),
    ],
)
@pytest.mark.parametrize("dataset", TABLES)
def test_logits(dataset, logits, top, parameters):
    model = build(base(dataset, logits=logits), seed=1)
    assert lines(model) == [*TABLES[dataset][:-2], *top, "Softmax 10 units"]
    assert model.count_params() == PARAMETERS[dataset] + parameters
    x = images(dataset)
    values = run(keras.Model(model.inputs[0], model.layers[-2].output), x)
    assert (values.min() >= 0) == (logits == "relu")
    exp = np.exp(values.astype(np.float64))
    want = exp / exp.sum(axis=1, keepdims=True)
    assert_allclose(run(model, x), want, rtol=1e-5, atol=0)
    assert mixed(dataset, 0, logits=logits) == base(dataset, logits=logits)


def is_mixed_variant(block, original):
    """Tell extra filters, or one extra convolution, in a block from all else."""
    if len(block) == len(original):
        pairs = list(zip(block, original, strict=True))
        return all(new >= old for new, old in pairs) and block != original
    return original in [block[:i] + block[i + 1 :] for i in range(len(block))]


@pytest.mark.parametrize("dataset", TABLES)
def test_mixed_variants(dataset):
    variants = [mixed(dataset, index) for index in range(10)]
    assert len(MIXED_BLOCKS[base(dataset)]) == len(set(variants)) == 10
    assert variants[0] == base(dataset)
    sizes = set()
    for variant in variants:
        original = base(dataset)
        # Nothing but the blocks differs, and only one of them.
        assert dataclasses.replace(variant, blocks=original.blocks) == original
        pairs = list(zip(variant.blocks, original.blocks, strict=True))
        changed = [pair for pair in pairs if pair[0] != pair[1]]
        assert len(changed) == (variant != original)
        assert all(is_mixed_variant(*pair) for pair in changed)
        model = build(variant, seed=1)
        convolutions = [text for text in lines(model) if "Convolutional" in text]
        filters = [n for block in variant.blocks for n in block]
        assert convolutions == [
            f"Relu Convolutional {n} filters (3×3)" for n in filters
        ]
        assert lines(model)[-4:] == TABLES[dataset][-4:]
        sizes.add(model.count_params())
    assert len(sizes) == 10
    assert [mixed(dataset, index) for index in range(10, 13)] == variants[:3]


def test_seed_determines_the_weights():
    keras.utils.set_random_seed(1)
    first = build(TABLE1, seed=5)
    keras.utils.set_random_seed(2)
    assert_same_weights(build(TABLE1, seed=5), first)
    for a, b in zip(build(TABLE1, seed=6).weights, first.weights, strict=True):
        equal = ops.convert_to_numpy(a) == ops.convert_to_numpy(b)
        assert equal.all() if a.name == "bias" else equal.mean() < 0.01


def test_seed_determines_the_dropout_masks():
    def mask(seed):
        model = build(TABLE3, seed=seed)
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
    kernels = build(mixed("mnist", 7), seed=5).get_weights()[2:6:2]
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

    assert draws(lambda: build(TABLE3, seed=5)) == draws(lambda: None)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_a_float32_softmax(dtype):
    model = build(TABLE1, seed=5, dtype=dtype)
    *body, last = model.layers
    assert {layer.compute_dtype for layer in body} == {dtype.removeprefix("mixed_")}
    assert last.compute_dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    single = build(TABLE1, seed=5)
    assert_same_weights(model, single)
    probs = run(model, images("mnist"))
    assert probs.dtype == np.float32
    assert_allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-6)
    # bfloat16 keeps 8 bits.
    assert_allclose(probs, run(single, images("mnist")), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"logits": "probs"}, "'linear' or 'dense'. Received: logits='probs'"),
        ({"block_dropout": (0.2, 0.3)}, "Received: 2 rates for 1 blocks"),
        ({"block_dropout": ()}, "Received: 0 rates for 1 blocks"),
    ],
)
def test_impossible_architecture(changes, rule):
    with pytest.raises(ValueError, match=rule):
        dataclasses.replace(TABLE1, **changes)


def test_logits_are_checked_at_the_entry():
    for call in (
        lambda x: base("mnist", logits=x),
        lambda x: mixed("mnist", 1, logits=x),
    ):
        with pytest.raises(ValueError, match="`logits` must be"):
            call("softmax")


def test_table_3_cannot_be_built_without_padding():
    with pytest.raises(ValueError, match="output size would be zero or negative"):
        build(dataclasses.replace(TABLE3, padding="valid"), seed=1)
