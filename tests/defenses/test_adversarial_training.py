import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import datasets
from advens.defenses.adversarial_training import AdversarialTraining
from advens.defenses.settings import AdversarialSettings
from advens.models.architecture import Architecture
from advens.models.convnet import build

RNG = np.random.default_rng(3)
X = RNG.uniform(size=(12, 2, 2, 1)).astype("float32")
Y = RNG.integers(3, size=12)
SOFT = RNG.dirichlet(np.ones(3), size=12).astype("float32")
KERNEL, BIAS = RNG.normal(size=(4, 3)), RNG.normal(size=3)
FLAT = X.reshape(12, 4).astype("float64")
ONE_HOT = np.eye(3)[Y]
TINY = Architecture((28, 28, 1), ((2,),), (0.2,), 8, "valid", logits="linear")


@pytest.fixture
def classifier(make_classifier):
    def make(ending="logits", kernel=KERNEL):
        return make_classifier(ending, kernel, BIAS)

    return make


def loss_of(ending):
    from_logits = ending.endswith("logits")
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cross_entropy(x, kernel=KERNEL, bias=BIAS, targets=ONE_HOT):
    return -(targets * np.log(softmax(x @ kernel + bias))).sum(axis=1).mean()


def by_hand(eps, kernel=KERNEL, bias=BIAS, box=False, labels="true", targets=ONE_HOT):
    """Return the perturbed images, `(12, 4)`, in float64."""
    probs = softmax(FLAT @ kernel + bias)
    if labels == "predicted":
        targets = np.eye(3)[probs.argmax(axis=1)]
    x_adv = FLAT + eps * np.sign((probs - targets) @ kernel.T)
    return np.clip(x_adv, 0, 1) if box else x_adv


def perturbed(model, y=Y):
    return ops.convert_to_numpy(model.perturbed(X, y)).reshape(12, 4)


def test_two_steps_of_fit_by_hand(classifier, ending, outputs):
    check_two_steps_of_fit(classifier(ending), ending, rho=0.3, outputs=outputs)


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_only_one_of_the_losses(classifier, rho):
    check_two_steps_of_fit(classifier(), "logits", rho=rho, outputs=None)


def check_two_steps_of_fit(classifier, ending, rho, outputs):
    model = AdversarialTraining(classifier, eps=0.2, rho=rho, outputs=outputs)
    model.compile(keras.optimizers.SGD(2.0), loss_of(ending), jit_compile=False)
    plain = model.evaluate(X, Y, verbose=0)
    assert_allclose(plain, cross_entropy(FLAT), rtol=0, atol=1e-5)
    history = model.fit(X, Y, epochs=2, batch_size=12, shuffle=False, verbose=0)
    kernel, bias, losses, attacks = KERNEL, BIAS, [], []
    for _ in range(2):
        attacks.append(by_hand(0.2, kernel, bias))
        loss, kernel_step, bias_step = 0, 0, 0
        # `NegativeInTraining` is off in the attack and on in both losses.
        for weight, x in ((rho, -FLAT), (1 - rho, -attacks[-1])):
            errors = (softmax(x @ kernel + bias) - ONE_HOT) / 12
            loss += weight * cross_entropy(x, kernel, bias)
            kernel_step += weight * x.T @ errors
            bias_step += weight * errors.sum(axis=0)
        losses.append(loss)
        kernel, bias = kernel - 2.0 * kernel_step, bias - 2.0 * bias_step
    assert (attacks[0] != attacks[1]).any()
    assert_allclose(history.history["loss"], losses, rtol=0, atol=1e-5)
    got = model.model.get_layer("last").get_weights()
    assert_allclose(got[0], kernel, rtol=0, atol=1e-5)
    assert_allclose(got[1], bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("labels", ["true", "predicted"])
def test_perturbed_images_by_hand(classifier, ending, outputs, box, labels):
    options = {"box": box, "labels": labels}
    model = AdversarialTraining(classifier(ending), eps=0.4, outputs=outputs, **options)
    want = by_hand(0.4, **options)
    assert_allclose(perturbed(model), want, rtol=0, atol=1e-6)
    assert (want.min() < 0 or want.max() > 1) != box
    # The weights are those of the moment.
    model.model.get_layer("last").set_weights([-KERNEL, BIAS])
    want = by_hand(0.4, -KERNEL, **options)
    assert_allclose(perturbed(model), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("y", [Y * 0, np.eye(3)[Y * 0]], ids=["int", "one-hot"])
def test_exact_where_the_network_is_certain(classifier, y):
    model, rounded = (
        AdversarialTraining(classifier(), eps=0.4, loss=loss)
        for loss in ("exact", "logits")
    )
    for network in (model, rounded):
        network.model.get_layer("last").set_weights([KERNEL, np.array([30, 0, 0])])
    # p - onehot(0) without the difference.
    errors = softmax(FLAT @ KERNEL + [30, 0, 0])
    errors[:, 0] = -errors[:, 1:].sum(axis=1)
    want = FLAT + 0.4 * np.sign(errors @ KERNEL.T)
    assert_allclose(perturbed(model, y), want, rtol=0, atol=1e-6)
    assert (perturbed(rounded, y) != perturbed(model, y)).any()


@pytest.mark.parametrize("y", [Y * 0, np.eye(3)[Y * 0]], ids=["int", "one-hot"])
@pytest.mark.parametrize("gap", [40, 150])
def test_moved_where_the_other_classes_underflow(classifier, y, gap):
    model = AdversarialTraining(classifier(), eps=0.4)
    model.model.get_layer("last").set_weights([KERNEL, np.array([gap, 0, 0])])
    # The gradient, divided by 1 - p_0: a softmax over the other classes, and -1.
    errors = np.insert(softmax((FLAT @ KERNEL)[:, 1:]), 0, -1, axis=1)
    want = FLAT + 0.4 * np.sign(errors @ KERNEL.T)
    assert_allclose(perturbed(model, y), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
@pytest.mark.parametrize("y", [Y, 0.9999 * ONE_HOT + 0.0001 / 3], ids=["int", "soft"])
def test_in_half_precision_the_gradient_does_not_underflow(y, dtype):
    network = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Flatten(dtype=dtype),
            layers.Dense(3, dtype=dtype, use_bias=False),
        ]
    )
    # A label is certain at 1 - p = 5e-6, and pixels add little: all entries of the
    # gradient are below 6e-8, the smallest float16. These weights are float16s.
    kernel = np.round(KERNEL * 64) / 4096
    network.layers[-1].set_weights([kernel])
    model = AdversarialTraining(network, eps=0.25)
    want = by_hand(0.25, kernel, 0, targets=y if y.ndim == 2 else ONE_HOT)
    assert_allclose(perturbed(model, y), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ending", ["sigmoid", "logits"])
@pytest.mark.parametrize(
    "y", [Y % 2, (Y % 2)[:, None], (Y % 2).astype("float32")[:, None], SOFT[:, 0]]
)
def test_one_output_unit_by_hand(make_classifier, ending, y):
    kernel, bias = KERNEL[:, :1], BIAS[:1]
    network = make_classifier(ending, kernel, bias)
    model = AdversarialTraining(network, eps=0.3, rho=0.25)
    p = np.reshape(y, (12, 1))
    x_adv = FLAT + 0.3 * np.sign((sigmoid(FLAT @ kernel + bias) - p) * kernel.T)
    assert_allclose(perturbed(model, y), x_adv, rtol=0, atol=1e-6)

    def losses(x):
        q = sigmoid(x @ kernel + bias)
        return -(p * np.log(q) + (1 - p) * np.log(1 - q)).mean()

    loss = keras.losses.BinaryCrossentropy(from_logits=ending == "logits")
    model.compile("sgd", loss, jit_compile=False)
    assert_allclose(model.test_on_batch(X, y), losses(FLAT), rtol=0, atol=1e-5)
    model.reset_metrics()  # Keras 3.12 goes on with its mean
    want = 0.25 * losses(-FLAT) + 0.75 * losses(-x_adv)
    assert_allclose(model.train_on_batch(X, y), want, rtol=0, atol=1e-5)


def test_one_output_unit_predicts_its_label(make_classifier):
    kernel, bias = KERNEL[:, :1], BIAS[:1]
    network = make_classifier("logits", kernel, bias)
    model = AdversarialTraining(network, eps=0.3, labels="predicted")
    # Away from the predicted class: up where z is negative, and down elsewhere.
    signs = -np.sign(FLAT @ kernel + bias)
    assert np.unique(signs).size == 2
    want = FLAT + 0.3 * signs * np.sign(kernel.T)
    assert_allclose(perturbed(model, Y % 2), want, rtol=0, atol=1e-6)


def test_predicted_labels_matter_where_they_are_wrong(classifier):
    true, predicted = (
        perturbed(AdversarialTraining(classifier(), eps=0.1, labels=labels))
        for labels in ("true", "predicted")
    )
    wrong = (FLAT @ KERNEL + BIAS).argmax(axis=1) != Y
    assert 0 < wrong.sum() < 12
    assert_array_equal((true != predicted).any(axis=1), wrong)


def test_forms_of_labels(classifier):
    model = AdversarialTraining(classifier(), eps=0.1)
    for y in (Y[:, None], Y.astype("uint8"), ONE_HOT, ONE_HOT.astype("int32")):
        assert_array_equal(perturbed(model, y), perturbed(model))
    want = by_hand(0.1, targets=SOFT)
    assert_allclose(perturbed(model, SOFT), want, rtol=0, atol=1e-6)
    assert (want != by_hand(0.1)).any()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    want = (cross_entropy(-FLAT, targets=SOFT) + cross_entropy(-want, targets=SOFT)) / 2
    assert_allclose(model.train_on_batch(X, SOFT), want, rtol=0, atol=1e-5)


def test_weights_of_images_and_classes(classifier):
    weights, of_classes = np.linspace(0, 2, 12), {0: 0.5, 1: 2.0, 2: 0.0}
    x_adv = by_hand(0.2)

    def losses(x):
        return -np.log(softmax(-x @ KERNEL + BIAS))[range(12), Y]

    mean_losses = (losses(FLAT) + losses(x_adv)) / 2
    for option, factors in (
        ({"sample_weight": weights}, weights),
        ({"class_weight": of_classes}, np.array([0.5, 2, 0])[Y]),
    ):
        model = AdversarialTraining(classifier(), eps=0.2)
        model.compile("sgd", loss_of("logits"), jit_compile=False)
        got = model.train_on_batch(X, Y, **option)
        assert_allclose(got, (factors * mean_losses).mean(), rtol=0, atol=1e-5)


def test_a_loss_that_is_no_cross_entropy(classifier):
    def loss(x):
        return np.square(softmax(-x @ KERNEL + BIAS) - ONE_HOT).mean()

    model = AdversarialTraining(classifier("softmax"), eps=0.2)
    model.compile("sgd", "mse", jit_compile=False)
    # The perturbation is that of the cross-entropy all the same.
    want = (loss(FLAT) + loss(by_hand(0.2))) / 2
    assert_allclose(model.train_on_batch(X, ONE_HOT), want, rtol=0, atol=1e-5)


def test_label_smoothing(classifier):
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    model = AdversarialTraining(classifier(), eps=0.2)
    model.compile("sgd", loss, jit_compile=False)
    smooth = 0.7 * ONE_HOT + 0.1
    want = [cross_entropy(-x, targets=smooth) for x in (FLAT, by_hand(0.2))]
    assert_allclose(model.train_on_batch(X, ONE_HOT), np.mean(want), rtol=0, atol=1e-5)


def test_data_sets_and_validation(classifier, in_batches):
    weights = np.linspace(0, 2, 12, dtype="float32")
    fitted = []
    for data in (
        {"x": X, "y": Y, "sample_weight": weights, "batch_size": 4},
        {"x": in_batches(X, Y, weights), "steps_per_epoch": 3},
    ):
        model = AdversarialTraining(classifier(), eps=0.2)
        model.compile("sgd", loss_of("logits"), jit_compile=False)
        options = {"validation_data": (X, Y), "epochs": 2, "shuffle": False}
        history = model.fit(**data, **options, verbose=0).history
        kernel, bias = model.model.get_layer("last").get_weights()
        # Validation images are not perturbed.
        want = cross_entropy(FLAT, kernel, bias)
        assert_allclose(history["val_loss"][-1], want, rtol=0, atol=1e-5)
        fitted.append((kernel, history["loss"]))
    assert_allclose(fitted[1][0], fitted[0][0], rtol=0, atol=1e-6)
    assert_allclose(fitted[1][1], fitted[0][1], rtol=0, atol=1e-5)
    assert np.abs(fitted[0][0] - KERNEL).max() > 1e-3


@pytest.mark.parametrize("option", ["jit_compile", "run_eagerly"])
def test_ways_to_compile(classifier, option):
    model = AdversarialTraining(classifier("softmax"), eps=0.2)
    model.compile("sgd", loss_of("softmax"), metrics=["accuracy"], **{option: True})
    want = (cross_entropy(-FLAT) + cross_entropy(-by_hand(0.2))) / 2
    loss, accuracy = model.train_on_batch([X], [Y])
    assert_allclose(loss, want, rtol=0, atol=1e-5)
    # Keras shows metrics of the unperturbed images.
    right = (-FLAT @ KERNEL + BIAS).argmax(axis=1) == Y
    assert_allclose(accuracy, right.mean(), rtol=0, atol=1e-6)


def test_answers_are_those_of_the_classifier(classifier):
    network = classifier("softmax")
    model = AdversarialTraining(network, eps=0.2)
    for either in (network, model):
        loss = loss_of("softmax")
        either.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    assert model.evaluate(X, Y, verbose=0) == network.evaluate(X, Y, verbose=0)
    assert_array_equal(model.predict(X, verbose=0), network.predict(X, verbose=0))


def digits_fit(rho, dtype="float32", **fit):
    """Train a small network with dropout, adversarially if `rho` is given."""
    model = network = build(TINY, seed=4, dtype=dtype)
    if rho is not None:
        model = AdversarialTraining(network, eps=0.1, rho=rho)
    model.compile("adam", loss_of("softmax"), jit_compile=False)
    data = datasets.load("digits").subset(train_images=48, test_images=16)
    options = {"epochs": 2, "shuffle": False, "verbose": 0, **fit}
    model.fit(data.x_train, data.y_train, **options)
    return model, network.get_weights(), data


def test_rho_of_one_is_plain_training_to_the_bit():
    plain, with_one, with_half = (digits_fit(rho)[1] for rho in (None, 1.0, 0.5))
    for got, other, want in zip(with_one, with_half, plain, strict=True):
        assert_array_equal(got, want)
        assert (other != want).any()


def test_in_half_precision_with_callbacks():
    epochs = []
    seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda e, logs: epochs.append(e))
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100, patience=1)
    options = {"epochs": 9, "callbacks": [seen, stop]}
    model, weights, data = digits_fit(0.5, "mixed_bfloat16", **options)
    assert epochs == [0, 1]
    assert {w.dtype.name for w in weights} == {"float32"}
    x, y = data.x_train, data.y_train
    x_adv = ops.convert_to_numpy(model.perturbed(x.astype("float64"), y))
    assert x_adv.dtype == np.float32
    # No bfloat16 is 0.1. If the images were of that type, none of this would hold.
    up, down = x + np.float32(0.1), x - np.float32(0.1)
    assert np.all((x_adv == up) | (x_adv == down) | (x_adv == x))
    assert np.mean(x_adv != x) > 0.2


def test_the_loss_is_scaled_as_the_classifier_asks(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = keras.Sequential(
            [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(3)]
        )
    finally:
        keras.config.set_dtype_policy("float32")
    model = AdversarialTraining(network, eps=0.1)
    model.compile("sgd", loss_of("logits"), jit_compile=False)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    for either in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert isinstance(either.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("ending", ["softmax", "hidden logits"])
def test_saved_and_loaded(tmp_path, classifier, ending, outputs):
    options = {
        "eps": 0.1,
        "rho": 0.25,
        "box": True,
        "labels": "predicted",
        "loss": "logits",
    }
    settings = AdversarialSettings(**options)
    model = AdversarialTraining(classifier(ending), outputs=outputs, **options)
    model.compile("adam", loss_of(ending), jit_compile=False)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is AdversarialTraining
    assert loaded.settings == model.settings == settings
    assert_array_equal(loaded(X), model(X))
    assert_array_equal(perturbed(loaded), perturbed(model))
    model.reset_metrics()  # Keras 3.12 goes on with its mean
    losses = [m.train_on_batch(X, Y) for m in (model, loaded)]
    assert_allclose(losses[1], losses[0], rtol=0, atol=1e-6)
    # No layer is tracked, and saved, twice.
    assert model.layers == [model.model]
    assert len(loaded.weights) == 2
    for got, want in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert_allclose(got, want, rtol=0, atol=1e-6)


def test_data_that_cannot_be_trained_on(classifier):
    for x, y, message in (
        ((255 * X).astype("uint8"), Y, r"floats in \[0, 1\].*Received: dtype uint8"),
        (X, None, "`y` must be the labels of the images. Received: None"),
    ):
        model = AdversarialTraining(classifier(), eps=0.1)
        model.compile("sgd", loss_of("logits"), jit_compile=False)
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"`y` must be .*Received: shape \(12, 4\)"):
        model.perturbed(X, np.eye(4)[Y])


def test_more_than_one_input_or_output():
    first, second = keras.Input((2, 2, 1)), keras.Input((2, 2, 1))
    flat = layers.Flatten()(first + second)
    for model in (
        keras.Model([first, second], layers.Dense(3)(flat)),
        keras.Model(first, [layers.Dense(3)(layers.Flatten()(first))] * 2),
    ):
        with pytest.raises(ValueError, match="one input and one output"):
            AdversarialTraining(model, eps=0.1)


def test_a_classifier_must_show_what_it_returns():
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(3, activation="relu")]
    )
    with pytest.raises(ValueError, match="Cannot tell whether model"):
        AdversarialTraining(model, eps=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("eps", -0.1), ("rho", 1.1), ("labels", "first"), ("loss", "clipped")],
)
def test_unsuitable_options(classifier, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*{name}={value!r}$"):
        AdversarialTraining(classifier(), **{"eps": 0.1, name: value})
