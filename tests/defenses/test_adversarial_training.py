import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import datasets, models
from advens.adversarial_training import Adversarial, AdversarialTraining
from advens.distillation import (
    Distillation,
    distill,
    smoothed_labels,
    student_model,
)

RNG = np.random.default_rng(3)
X = RNG.uniform(size=(12, 2, 2, 1)).astype("float32")
Y = RNG.integers(3, size=12)
SOFT = RNG.dirichlet(np.ones(3), size=12).astype("float32")
KERNEL, BIAS = RNG.normal(size=(4, 3)), RNG.normal(size=3)
FLAT = X.reshape(12, 4).astype("float64")
ONE_HOT = np.eye(3)[Y]
TINY = models.Architecture((28, 28, 1), ((2,),), (0.2,), 8, "valid", logits="linear")


@keras.saving.register_keras_serializable("tests")
class NegativeInTraining(layers.Layer):
    """In the place of dropout: it too is on in training alone, but without chance."""

    def call(self, inputs, training=False):
        return -inputs if training else inputs


def dense(activation=None):
    return layers.Dense(3, activation=activation, name="last")


# Of each ending: the layers after Flatten, and what has to be said of it.
ENDINGS = {
    "softmax": (lambda: [dense(), layers.Softmax()], None),
    "dense softmax": (lambda: [dense("softmax")], None),
    "logits": (lambda: [dense()], None),
    "untold logits": (lambda: [dense(), layers.Rescaling(1.0)], "logits"),
    "untold probs": (lambda: [dense(), layers.Lambda(ops.softmax)], "probs"),
}


def classifier(ending="logits", kernel=KERNEL):
    """Return a classifier of the logits `FLAT @ kernel + BIAS`, or -FLAT in fit."""
    body = [keras.Input((2, 2, 1)), layers.Flatten(), NegativeInTraining()]
    model = keras.Sequential([*body, *ENDINGS[ending][0]()])
    model.get_layer("last").set_weights([kernel, BIAS])
    return model


def loss_of(ending):
    from_logits = ending.endswith("logits")
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


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


@pytest.mark.parametrize(
    ("ending", "rho"), [*((e, 0.3) for e in ENDINGS), ("logits", 0.0), ("logits", 1.0)]
)
def test_two_steps_of_fit_by_hand(ending, rho):
    outputs = ENDINGS[ending][1]
    model = AdversarialTraining(classifier(ending), eps=0.2, rho=rho, outputs=outputs)
    model.compile(keras.optimizers.SGD(2.0), loss_of(ending), jit_compile=False)
    plain = model.evaluate(X, Y, verbose=0)
    assert_allclose(plain, cross_entropy(FLAT), rtol=0, atol=1e-5)
    history = model.fit(X, Y, epochs=2, batch_size=12, shuffle=False, verbose=0)
    kernel, bias, losses, attacks = KERNEL, BIAS, [], []
    for _ in range(2):
        attacks.append(by_hand(0.2, kernel, bias))
        loss, kernel_step, bias_step = 0, 0, 0
        # The attack is made without the sign of training, both losses with it.
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


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("labels", ["true", "predicted"])
def test_perturbed_images_by_hand(ending, box, labels):
    options = {"box": box, "labels": labels}
    outputs = ENDINGS[ending][1]
    model = AdversarialTraining(classifier(ending), eps=0.4, outputs=outputs, **options)
    want = by_hand(0.4, **options)
    assert_allclose(perturbed(model), want, rtol=0, atol=1e-6)
    assert (want.min() < 0 or want.max() > 1) != box
    # It comes from the weights of the moment.
    model.model.get_layer("last").set_weights([-KERNEL, BIAS])
    want = by_hand(0.4, -KERNEL, **options)
    assert_allclose(perturbed(model), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("y", [Y * 0, np.eye(3)[Y * 0]], ids=["int", "one-hot"])
def test_exact_where_the_network_is_certain(y):
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


def test_predicted_labels_matter_where_they_are_wrong():
    true, predicted = (
        perturbed(AdversarialTraining(classifier(), eps=0.1, labels=labels))
        for labels in ("true", "predicted")
    )
    wrong = (FLAT @ KERNEL + BIAS).argmax(axis=1) != Y
    assert 0 < wrong.sum() < 12
    assert_array_equal((true != predicted).any(axis=1), wrong)


def test_forms_of_labels():
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


def digits_fit(rho, dtype="float32", **fit):
    """Train a small network with dropout, adversarially if `rho` is given."""
    model = network = models.build(TINY, seed=4, dtype=dtype)
    if rho is not None:
        model = AdversarialTraining(network, eps=0.1, rho=rho)
    model.compile("adam", loss_of("softmax"), jit_compile=False)
    data = datasets.load("digits").subset(train_images=48, test_images=16)
    options = {"epochs": 2, "shuffle": False, "verbose": 0, **fit}
    model.fit(data.x_train, data.y_train, **options)
    return model, network.get_weights(), data


def test_rho_of_one_is_plain_training_to_the_bit():
    plain, one, half = (digits_fit(rho)[1] for rho in (None, 1.0, 0.5))
    for got, other, want in zip(one, half, plain, strict=True):
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
    # No bfloat16 is 0.1: had the images been of that type, none of this would hold.
    up, down = x + np.float32(0.1), x - np.float32(0.1)
    assert np.all((x_adv == up) | (x_adv == down) | (x_adv == x))
    assert np.mean(x_adv != x) > 0.2


@pytest.mark.parametrize("ending", ["softmax", "untold logits"])
def test_saved_and_loaded(tmp_path, ending):
    options = {"eps": 0.1, "rho": 0.25, "box": True, "labels": "predicted"}
    options["loss"] = "logits"
    settings = Adversarial(**options)
    outputs = ENDINGS[ending][1]
    model = AdversarialTraining(classifier(ending), outputs=outputs, **options)
    model.compile("adam", loss_of(ending), jit_compile=False)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is AdversarialTraining
    assert loaded.settings == model.settings == settings
    assert_array_equal(loaded(X), model(X))
    assert_array_equal(perturbed(loaded), perturbed(model))
    losses = [m.train_on_batch(X, Y) for m in (model, loaded)]
    assert_allclose(losses[1], losses[0], rtol=0, atol=1e-6)
    # Nothing is held, and saved, twice.
    assert model.layers == [model.model]
    assert len(loaded.weights) == 2
    for got, want in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert_allclose(got, want, rtol=0, atol=1e-6)


def test_labels_of_a_certain_teacher():
    teacher = keras.Sequential(
        [keras.Input((1, 1, 10)), layers.Flatten(), layers.Dense(10, use_bias=False)]
    )
    teacher.set_weights([100 * np.eye(10)])
    x = np.eye(10, dtype="float32").reshape(10, 1, 1, 10)
    top, other = np.array([np.exp(0.1), 1]) / (np.exp(0.1) + 9)
    assert (round(top, 5), round(other, 5)) == (0.10937, 0.09896)
    want = np.where(np.eye(10) == 1, top, other)
    assert_allclose(smoothed_labels(teacher, x), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("formula", ["printed", "papernot"])
def test_smoothed_labels_by_hand(ending, temperature, formula):
    options = {"temperature": temperature, "formula": formula}
    options["outputs"] = ENDINGS[ending][1]
    labels = smoothed_labels(classifier(ending), X, **options)
    assert (labels.dtype, labels.shape) == (np.float32, (12, 3))
    logits = FLAT @ KERNEL + BIAS
    scores = logits if formula == "papernot" else softmax(logits)
    assert_allclose(labels, softmax(scores / temperature), rtol=0, atol=1e-6)
    assert_allclose(labels.sum(axis=1), 1, rtol=0, atol=1e-6)
    by_five = smoothed_labels(classifier(ending), X, batch_size=5, **options)
    assert_allclose(by_five, labels, rtol=0, atol=1e-6)
    # At T = 1 Papernot's are the teacher's own probabilities; the others never are.
    same = np.allclose(labels, softmax(logits), rtol=0, atol=1e-3)
    assert same == (formula == "papernot" and temperature == 1)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("formula", "divisor"), [("printed", 1), ("papernot", 4)])
def test_a_step_of_distillation_by_hand(ending, formula, divisor):
    teacher, student = classifier(ending), classifier(ending, -KERNEL)
    before = teacher.get_weights()
    options = {"temperature": 4.0, "formula": formula}
    outputs = ENDINGS[ending][1]
    of_each = {"teacher_outputs": outputs, "student_outputs": outputs}
    sgd = {"optimizer": keras.optimizers.SGD(0.5), "jit_compile": False}
    fit = {"epochs": 1, "batch_size": 12, "verbose": 0}
    history = distill(teacher, student, X, **options, **of_each, **sgd, **fit)
    for got, want in zip(teacher.get_weights(), before, strict=True):
        assert_array_equal(got, want)
    scores = FLAT @ KERNEL + BIAS
    labels = softmax((scores if formula == "papernot" else softmax(scores)) / 4)
    # The student is trained at the temperature T ...
    logits = (FLAT @ KERNEL + BIAS) / divisor
    want = cross_entropy(FLAT, KERNEL / divisor, BIAS / divisor, labels)
    assert_allclose(history.history["loss"], [want], rtol=0, atol=1e-5)
    errors = (softmax(logits) - labels) / (12 * divisor)
    kernel, bias = student.get_layer("last").get_weights()
    assert_allclose(kernel, -KERNEL + 0.5 * FLAT.T @ errors, rtol=0, atol=1e-5)
    assert_allclose(bias, BIAS - 0.5 * errors.sum(axis=0), rtol=0, atol=1e-5)
    # ... and used at 1.
    logits = FLAT @ kernel + bias
    want = logits if ending.endswith("logits") else softmax(logits)
    assert_allclose(student.predict(X, verbose=0), want, rtol=0, atol=1e-5)
    # Logarithms of probabilities are logits but for a constant in each row.
    got = student_model(student, outputs=outputs, **options).predict(X, verbose=0)
    got, want = (a - a.mean(axis=1, keepdims=True) for a in (got, logits / divisor))
    assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", ["logits", "softmax"])
def test_a_student_stays_as_it_was_compiled(ending):
    student = classifier(ending, -KERNEL)
    student.compile("sgd", loss_of(ending), metrics=["accuracy"])
    before = student.evaluate(X, Y, verbose=0)
    distill(classifier(), student, X, jit_compile=False, verbose=0)
    after = student.evaluate(X, Y, verbose=0)
    assert len(before) == len(after) == 2
    assert before != after


def test_teacher_and_student_may_tell_differently():
    teacher, student = classifier("softmax"), classifier("untold logits", -KERNEL)
    before = student.get_weights()
    options = {"student_outputs": "logits", "jit_compile": False, "verbose": 0}
    distill(teacher, student, X, **options)
    assert (student.get_weights()[0] != before[0]).any()
    with pytest.raises(ValueError, match="ends in probs, not in logits"):
        distill(teacher, student, X, teacher_outputs="logits", **options)


def test_a_student_without_its_softmax_can_be_saved(tmp_path):
    student, path = classifier("dense softmax"), tmp_path / "student.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    options = {"jit_compile": False, "verbose": 0, "callbacks": [checkpoint]}
    distill(classifier(), student, X, **options)
    again = keras.saving.load_model(path)
    want = np.log(student.predict(X, verbose=0))
    got = again.predict(X, verbose=0)
    got, want = (a - a.mean(axis=1, keepdims=True) for a in (got, want))
    assert_allclose(got, want, rtol=0, atol=1e-5)


def test_images_that_cannot_be_trained_on():
    robust = AdversarialTraining(classifier(), eps=0.1)
    robust.compile("sgd", loss_of("logits"))
    with pytest.raises(ValueError, match="floats in .0, 1.*Received: dtype uint8"):
        robust.fit((255 * X).astype("uint8"), Y, verbose=0)
    with pytest.raises(ValueError, match="`x` must hold one image at least"):
        smoothed_labels(classifier(), X[:0])


@pytest.mark.parametrize(
    "function",
    [
        lambda model: AdversarialTraining(model, eps=0.1),
        lambda model: smoothed_labels(model, X),
        student_model,
        lambda model: distill(model, classifier(), X),
        lambda model: distill(classifier(), model, X),
    ],
)
def test_a_classifier_must_tell_what_it_returns(function):
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), dense("relu")])
    with pytest.raises(ValueError, match="Cannot tell whether model"):
        function(model)


ADVERSARIAL = [
    Adversarial,
    lambda **options: AdversarialTraining(classifier(), **options),
]
DISTILLATION = [
    Distillation,
    lambda **options: smoothed_labels(classifier(), X, **options),
    lambda **options: student_model(classifier(), **options),
    lambda **options: distill(classifier(), classifier(), X, **options),
]


@pytest.mark.parametrize(
    ("functions", "name", "value", "rule"),
    [
        *((ADVERSARIAL, "eps", v, ">= 0 and finite") for v in (-0.1, np.nan, np.inf)),
        *((ADVERSARIAL, "rho", v, r"in \[0, 1\]") for v in (-0.1, 1.1, np.nan)),
        (ADVERSARIAL, "labels", "first", r"one of \('true', 'predicted'\)"),
        (ADVERSARIAL, "loss", "clipped", r"one of \('exact', 'logits'\)"),
        *(
            (DISTILLATION, "temperature", v, "> 0 and finite")
            for v in (0.0, -1.0, np.nan, np.inf)
        ),
        (DISTILLATION, "formula", "Papernot", r"one of \('printed', 'papernot'\)"),
    ],
)
def test_unsuitable_options(functions, name, value, rule):
    options = {"eps": 0.1, name: value} if functions is ADVERSARIAL else {name: value}
    for function in functions:
        with pytest.raises(ValueError, match=f"`{name}` must be {rule}") as error:
            function(**options)
        assert str(error.value).endswith(f"Received: {name}={value!r}")
