import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from advens.defenses.distillation import distill, smoothed_labels, student_model

RNG = np.random.default_rng(3)
X = RNG.uniform(size=(12, 2, 2, 1)).astype("float32")
Y = RNG.integers(3, size=12)
KERNEL, BIAS = RNG.normal(size=(4, 3)), RNG.normal(size=3)
FLAT = X.reshape(12, 4).astype("float64")


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


def cross_entropy(x, kernel, bias, targets):
    return -(targets * np.log(softmax(x @ kernel + bias))).sum(axis=1).mean()


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


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("formula", ["printed", "papernot"])
def test_smoothed_labels_by_hand(classifier, ending, outputs, temperature, formula):
    options = {"temperature": temperature, "formula": formula, "outputs": outputs}
    labels = smoothed_labels(classifier(ending), X, **options)
    assert (labels.dtype, labels.shape) == (np.float32, (12, 3))
    logits = FLAT @ KERNEL + BIAS
    scores = logits if formula == "papernot" else softmax(logits)
    assert_allclose(labels, softmax(scores / temperature), rtol=0, atol=1e-6)
    assert_allclose(labels.sum(axis=1), 1, rtol=0, atol=1e-6)
    # The batch size changes nothing.
    by_five = smoothed_labels(classifier(ending), X, batch_size=5, **options)
    assert_allclose(by_five, labels, rtol=0, atol=1e-6)
    # At T = 1 Papernot's labels are the teacher's probabilities. No others are.
    same = np.allclose(labels, softmax(logits), rtol=0, atol=1e-3)
    assert same == (formula == "papernot" and temperature == 1)


@pytest.mark.parametrize(("formula", "divisor"), [("printed", 1), ("papernot", 4)])
def test_a_step_of_distillation_by_hand(classifier, ending, outputs, formula, divisor):
    teacher, student = classifier(ending), classifier(ending, -KERNEL)
    before = teacher.get_weights()
    options = {"temperature": 4.0, "formula": formula}
    history = distill(
        teacher,
        student,
        X,
        **options,
        teacher_outputs=outputs,
        student_outputs=outputs,
        optimizer=keras.optimizers.SGD(0.5),
        jit_compile=False,
        epochs=1,
        batch_size=12,
        verbose=0,
    )
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
    # Logarithms of probabilities differ from logits by a constant in each row.
    got = student_model(student, outputs=outputs, **options).predict(X, verbose=0)
    got, want = (a - a.mean(axis=1, keepdims=True) for a in (got, logits / divisor))
    assert_allclose(got, want, rtol=0, atol=1e-5)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize(("formula", "divisor"), [("printed", 1), ("papernot", 4)])
@pytest.mark.parametrize("ending", ["sigmoid", "logits"])
@pytest.mark.parametrize("student_units", [1, 2])
def test_one_output_unit_by_hand(
    make_classifier, ending, student_units, formula, divisor
):
    teacher = make_classifier(ending, KERNEL[:, :1], BIAS[:1])
    options = {"temperature": 4.0, "formula": formula}
    z = FLAT @ KERNEL[:, 0] + BIAS[0]
    # Its two classes have the logits 0 and z, and the probabilities 1 - p and p.
    scores = z if formula == "papernot" else sigmoid(z) - sigmoid(-z)
    second = sigmoid(scores / 4)
    labels = np.stack([1 - second, second], axis=1)
    got = smoothed_labels(teacher, X, **options)
    assert_allclose(got, labels, rtol=0, atol=1e-6)

    # In training its logits are 0 and -FLAT @ kernel + bias, or both of these.
    kernel, bias = -KERNEL[:, :student_units], BIAS[:student_units]
    student = make_classifier("logits", kernel, bias)
    history = distill(
        teacher,
        student,
        X,
        **options,
        optimizer=keras.optimizers.SGD(0.5),
        jit_compile=False,
        batch_size=12,
        verbose=0,
    )
    zero = np.zeros((4, 2 - student_units)), np.zeros(2 - student_units)
    kernel, bias = np.append(zero[0], kernel, axis=1), np.append(zero[1], bias)
    want = cross_entropy(-FLAT, kernel / divisor, bias / divisor, labels)
    assert_allclose(history.history["loss"], [want], rtol=0, atol=1e-5)
    errors = (softmax((-FLAT @ kernel + bias) / divisor) - labels) / (12 * divisor)
    want = (kernel + 0.5 * FLAT.T @ errors)[:, -student_units:]
    got = student.get_layer("last").get_weights()[0]
    assert_allclose(got, want, rtol=0, atol=1e-5)


def fit_student(make, x, **options):
    """Return the history and the weights after two epochs of three batches."""
    student = make(kernel=-KERNEL)
    history = distill(
        make(),
        student,
        x,
        temperature=4.0,
        optimizer=keras.optimizers.SGD(0.5),
        epochs=2,
        shuffle=False,
        jit_compile=False,
        verbose=0,
        **options,
    )
    return history.history, *student.get_layer("last").get_weights()


def test_data_sets(classifier, in_batches):
    weights = np.linspace(0, 2, 12, dtype="float32")
    for data, options in (
        ((X,), {}),
        # The labels of the data do not count, the weights do.
        ((X, np.zeros(12), weights), {"sample_weight": weights}),
    ):
        want = fit_student(classifier, X, batch_size=4, **options)
        got = fit_student(classifier, in_batches(*data), steps_per_epoch=3)
        assert_allclose(got[0]["loss"], want[0]["loss"], rtol=0, atol=1e-5)
        assert_allclose(got[1], want[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["arrays", "batches"])
def test_the_teacher_labels_validation_data(classifier, batches, kind):
    validation = (X, Y) if kind == "arrays" else batches(X)
    options = {"validation_data": validation, "batch_size": 4}
    history, kernel, bias = fit_student(classifier, X, **options)
    labels = softmax(softmax(FLAT @ KERNEL + BIAS) / 4)
    want = cross_entropy(FLAT, kernel, bias, labels)
    assert_allclose(history["val_loss"][-1], want, rtol=0, atol=1e-5)
    want = fit_student(classifier, X, batch_size=4)
    assert_allclose(history["loss"], want[0]["loss"], rtol=0, atol=1e-5)
    assert_allclose(kernel, want[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("ending", ["logits", "softmax"])
def test_a_student_stays_as_it_was_compiled(classifier, ending):
    student = classifier(ending, -KERNEL)
    student.compile("sgd", loss_of(ending), metrics=["accuracy"])
    before = student.evaluate(X, Y, verbose=0)
    distill(classifier(), student, X, jit_compile=False, verbose=0)
    after = student.evaluate(X, Y, verbose=0)
    assert len(before) == len(after) == 2
    assert before != after


def test_teacher_and_student_may_end_differently(classifier):
    teacher, student = classifier("softmax"), classifier("hidden logits", -KERNEL)
    before = student.get_weights()
    options = {"student_outputs": "logits", "jit_compile": False, "verbose": 0}
    distill(teacher, student, X, **options)
    assert (student.get_weights()[0] != before[0]).any()
    with pytest.raises(ValueError, match="ends in probs, not in logits"):
        distill(teacher, student, X, teacher_outputs="logits", **options)


@pytest.mark.parametrize("kind", ["array", "batches"])
def test_a_student_without_its_softmax_can_be_saved(
    tmp_path, classifier, batches, kind
):
    x = X if kind == "array" else batches(X)
    student, path = classifier("dense softmax"), tmp_path / "student.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    options = {"jit_compile": False, "verbose": 0, "callbacks": [checkpoint]}
    distill(classifier(), student, x, **options)
    again = keras.saving.load_model(path)
    want = np.log(student.predict(X, verbose=0))
    got = again.predict(X, verbose=0)
    got, want = (a - a.mean(axis=1, keepdims=True) for a in (got, want))
    assert_allclose(got, want, rtol=0, atol=1e-5)


def test_no_images(classifier):
    with pytest.raises(ValueError, match="`x` must hold at least one image"):
        smoothed_labels(classifier(), X[:0])


@pytest.mark.parametrize("x", [[X], (X, Y), {"images": X}])
def test_images_that_are_no_array(classifier, x):
    with pytest.raises(ValueError, match=f"`x` must be an array.*a {type(x).__name__}"):
        distill(classifier(), classifier(), x)


def test_more_than_one_input_or_output(classifier):
    first, second = keras.Input((2, 2, 1)), keras.Input((2, 2, 1))
    flat = layers.Flatten()(first + second)
    for model in (
        keras.Model([first, second], layers.Dense(3)(flat)),
        keras.Model(first, [layers.Dense(3)(layers.Flatten()(first))] * 2),
    ):
        for pair in ((model, classifier()), (classifier(), model)):
            with pytest.raises(ValueError, match="one input and one output"):
                distill(*pair, X)


def test_a_student_with_the_teachers_weights(classifier):
    teacher = classifier("softmax")
    student = keras.Sequential(teacher.layers[:-1])
    with pytest.raises(ValueError, match="`student` must have weights of its own"):
        distill(teacher, student, X)


@pytest.mark.parametrize("use", ["labels", "student_model", "teacher", "student"])
def test_a_classifier_must_show_what_it_returns(classifier, use):
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(3, activation="relu")]
    )
    with pytest.raises(ValueError, match="Cannot tell whether model"):
        {
            "labels": lambda: smoothed_labels(model, X),
            "student_model": lambda: student_model(model),
            "teacher": lambda: distill(model, classifier(), X),
            "student": lambda: distill(classifier(), model, X),
        }[use]()


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.0), ("formula", "Papernot")]
)
def test_unsuitable_options(classifier, name, value):
    for function in (
        lambda **options: smoothed_labels(classifier(), X, **options),
        lambda **options: student_model(classifier(), **options),
        lambda **options: distill(classifier(), classifier(), X, **options),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be .*{name}={value!r}$"):
            function(**{name: value})
