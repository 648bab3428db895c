import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from advens.models.convnet import build
from advens.strauss2017.networks import MIXED_BLOCKS, TABLE1, TABLE3, base, mixed

# As the paper prints them. Flatten has no line there.
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


def describe(layer):
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
    described = [describe(layer) for layer in model.layers]
    return [line for line in described if line != "Flatten"]


def images(dataset, n=8):
    return np.random.default_rng(3).random((n, *INPUTS[dataset]), np.float32)


def run(model, x, **options):
    return ops.convert_to_numpy(model(x, **options))


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
    """Return whether a block has extra filters, or one extra convolution."""
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
