import keras
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.gradients import Gradient, uncompiled_gradient
from advens.attacks.threat import Threat
from advens.models.ensemble import Ensemble
from advens.models.logits import logits_model

X = np.random.default_rng(2).uniform(size=(5, 2, 2, 1)).astype("float32")
Y = np.array([0, 1, 2, 1, 0])
# The paper's names of the first two, and the arguments of their threats.
GRADIENTS = {
    "Grad. 1": ("member", 1),
    "Grad. 2": ("mean_member",),
    "ensemble": ("ensemble",),
}


def gradient_of(kind, ensemble, **options):
    return uncompiled_gradient(ensemble, Threat(*GRADIENTS[kind], **options))


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def linear_probs(linear):
    """Return the members' probabilities, `(m, n, k)`, in float64."""
    return softmax(X.reshape(len(X), -1) @ linear[1] + linear[2][:, None])


def linear_gradients(linear, y=Y):
    """Return the gradients of the members' losses, (p - onehot) W^T, in float64."""
    grads = (linear_probs(linear) - np.eye(3)[y]) @ linear[1].transpose(0, 2, 1)
    return grads.reshape(3, *X.shape)


def weighted(probs, grads):
    """Return the sum over the members of p_i / sum(p) times their gradients."""
    return np.einsum("mn,mnhwc->nhwc", probs / probs.sum(axis=0), grads)


def numpy_member_probs(member, x):
    """Return the probabilities of a member of `convs`, computed in float64."""
    (kernel, conv_bias), (last, bias) = (
        [w.astype("float64") for w in member.get_layer(name).get_weights()]
        for name in ("conv", "last")
    )
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))
    conv = np.tanh(np.einsum("nhwcij,ijco->nhwo", windows, kernel) + conv_bias)
    return softmax(conv.reshape(len(x), -1) @ last + bias)


def test_closed_form_on_linear_members(linear):
    ensemble, want = linear[0], linear_gradients(linear)
    probs = linear_probs(linear)[:, range(5), Y]
    for i in range(3):
        got = uncompiled_gradient(ensemble, Threat("member", i))(X, Y)
        assert_allclose(got, want[i], rtol=1e-5, atol=1e-6)
    got = gradient_of("Grad. 2", ensemble)(X, Y)
    assert_allclose(got, want.mean(axis=0), rtol=1e-5, atol=1e-6)
    got = gradient_of("ensemble", ensemble)(X, Y)
    assert_allclose(got, weighted(probs, want), rtol=1e-5, atol=1e-6)


def test_mean_and_weighted_mean_of_the_members(convs, images):
    x, y = images
    threats = [Threat("member", i) for i in range(3)]
    grads = np.stack([uncompiled_gradient(convs, threat)(x, y) for threat in threats])
    probs = np.stack([numpy_member_probs(m, x)[range(6), y] for m in convs])
    got = gradient_of("Grad. 2", convs)(x, y)
    assert_allclose(got, grads.mean(axis=0), rtol=1e-5, atol=1e-6)
    got = gradient_of("ensemble", convs)(x, y)
    assert_allclose(got, weighted(probs, grads), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_finite_differences(convs, images, kind):
    x, y = images[0].astype("float64"), images[1]

    def loss(x):
        probs = np.stack([numpy_member_probs(member, x) for member in convs])
        if kind == "ensemble":
            return -np.log(probs.mean(axis=0)[range(6), y])
        losses = -np.log(probs[:, range(6), y])
        return losses[1] if kind == "Grad. 1" else losses.mean(axis=0)

    want, step = np.zeros_like(x), 1e-5
    for pixel in np.ndindex(x.shape[1:]):
        move = np.zeros(x.shape[1:])
        move[pixel] = step
        want[(slice(None), *pixel)] = (loss(x + move) - loss(x - move)) / (2 * step)
    got = gradient_of(kind, convs)(images[0], y)
    assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="ART needs TensorFlow here"
)
def test_mean_member_gradient_equals_art(convs, images):
    from art.estimators.classification import (
        EnsembleClassifier,
        TensorFlowV2Classifier,
    )

    members = [
        TensorFlowV2Classifier(
            logits_model(member),
            nb_classes=4,
            input_shape=(5, 5, 2),
            loss_object=keras.losses.CategoricalCrossentropy(
                from_logits=True, reduction="sum"
            ),
        )
        for member in convs
    ]
    x, y = images
    want = EnsembleClassifier(members).loss_gradient(x, np.eye(4)[y])
    got = gradient_of("Grad. 2", convs)(x, y)
    assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["exact", "logits", "clipped"])
@pytest.mark.parametrize("labels", ["true", "repredicted"])
def test_all_coincide_for_one_member(convs, images, labels, loss):
    ensemble = Ensemble([convs[0]])
    first, *others = (
        uncompiled_gradient(ensemble, Threat(*threat, labels=labels, loss=loss))(
            *images
        )
        for threat in (("member", 0), ("mean_member",), ("ensemble",))
    )
    for other in others:
        assert_allclose(other, first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_image_does_not_depend_on_its_neighbours(convs, images, kind):
    x, y = images
    followed = gradient_of(kind, convs)
    together = followed(x, y)
    for i in range(len(x)):
        alone = followed(x[i : i + 1], y[i : i + 1])
        assert_allclose(together[i], alone[0], rtol=1e-5, atol=1e-6)


def test_predictions_are_the_classifiers_own(linear):
    ensemble, probs = linear[0], linear_probs(linear)
    own, voted = probs.argmax(axis=-1), probs.mean(axis=0).argmax(axis=-1)
    assert len(np.unique([*own, voted, Y], axis=0)) == 5, "labels must differ"
    grads = np.stack([linear_gradients(linear, y)[i] for i, y in enumerate(own)])
    of_vote = weighted(probs[:, range(5), voted], linear_gradients(linear, voted))
    for kind, labels, want in (
        ("Grad. 1", own[1:2], grads[1]),
        ("Grad. 2", own, grads.mean(axis=0)),
        ("ensemble", voted[None], of_vote),
    ):
        repredicted = gradient_of(kind, ensemble, labels="repredicted")
        assert_allclose(repredicted(X, Y), want, rtol=1e-5, atol=1e-6)
        predicted = gradient_of(kind, ensemble, labels="predicted")
        assert_array_equal(predicted.start_labels(X, Y), labels)
        # An attack then holds these labels: the gradient does not predict them anew.
        assert_allclose(predicted(X, labels), want, rtol=1e-5, atol=1e-6)
        true = gradient_of(kind, ensemble)
        assert_allclose(predicted(X, Y), true(X, Y), rtol=0, atol=0)
        assert_allclose(true(X, labels), want, rtol=1e-5, atol=1e-6)
        for followed in (true, repredicted):
            assert_array_equal(followed.start_labels(X, Y), Y)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_exact_where_a_member_is_certain(linear, kind):
    ensemble, kernels = linear[0], linear[1].astype("float64")
    bias = np.array([30, 0, 0])
    for member, kernel in zip(ensemble, linear[1], strict=True):
        member.set_weights([kernel, bias])
    probs = softmax(X.reshape(5, -1) @ kernels + bias)
    assert (probs.astype("float32")[..., 0] == 1).all()
    # p - onehot(0) without the difference.
    errors = np.concatenate(
        [-probs[..., 1:].sum(axis=-1, keepdims=True), probs[..., 1:]], axis=-1
    )
    grads = (errors @ kernels.transpose(0, 2, 1)).reshape(3, *X.shape)
    want = grads[1] if kind == "Grad. 1" else grads.mean(axis=0)
    exact, rounded = (
        ops.convert_to_numpy(
            gradient_of(kind, ensemble, loss=loss)(X, np.zeros(5, int))
        )
        for loss in ("exact", "logits")
    )
    assert_allclose(exact, want, rtol=1e-4, atol=0)
    wrong = (np.sign(rounded) != np.sign(want)).any()
    assert wrong == (kind != "ensemble")


@pytest.mark.parametrize("kind", GRADIENTS)
def test_clipped_loss(linear, kind):
    ensemble = linear[0]
    clipped, exact = (
        gradient_of(kind, ensemble, loss=loss) for loss in ("clipped", "exact")
    )
    assert_allclose(clipped(X, Y), exact(X, Y), rtol=1e-5, atol=1e-6)
    # Class 0 leads by 20 nats and more: 1 - p(0), p(1) and p(2) are below 1e-7.
    for member, kernel, z in zip(ensemble, linear[1], (30, 31, 32), strict=True):
        member.set_weights([kernel * z / 30, np.array([z, 0, 0])])
    for y in (0, 1, 2):
        labels = np.full(5, y)
        assert_array_equal(clipped(X, labels), np.zeros_like(X))
        assert np.any(np.array(exact(X, labels)) != 0, axis=(1, 2, 3)).all()


def test_saturated_members_neither_overflow_nor_vanish(linear):
    ensemble = linear[0]
    # log p_i(0) is -3000, -1000 and -2000: every exp is 0, and member 1 outweighs.
    for member, kernel, z in zip(ensemble, linear[1], (3e3, 1e3, 2e3), strict=True):
        member.set_weights([kernel, np.array([0, z, 0])])
    got = gradient_of("ensemble", ensemble)(X, np.zeros(5, int))
    want = linear[1][1, :, 1] - linear[1][1, :, 0]
    assert_allclose(got, np.tile(want.reshape(2, 2, 1), (5, 1, 1, 1)), 1e-6, 1e-6)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_compiled(linear, kind):
    ensemble, traces = linear[0], []
    followed = gradient_of(kind, ensemble)

    def function(x, y):
        traces.append(x.shape)
        return followed(x, y)

    compiled = backend.compile(function, ensemble)
    for n in (5, 2, 5, 2):
        x, y = ops.convert_to_tensor(X[:n]), ops.convert_to_tensor(Y[:n])
        assert_allclose(compiled(x, y), followed(x, y), rtol=1e-5, atol=1e-6)
    assert len(traces) == 2
    before = np.array(compiled(x, y))
    for member in ensemble:
        member.set_weights([-w for w in member.get_weights()])
    assert_allclose(compiled(x, y), followed(x, y), rtol=1e-5, atol=1e-6)
    assert np.abs(compiled(x, y) - before).max() > 0.1
    assert len(traces) == 2


@pytest.mark.parametrize("kind", GRADIENTS)
def test_in_bfloat16(convs, images, kind):
    """Logits in bfloat16, of 8 bits, from the same weights; the loss is float32."""
    exact = gradient_of(kind, convs)(*images)
    rounded = gradient_of(kind, convs, compute="bfloat16")(*images)
    assert ops.dtype(rounded) == "float32"
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("index", [-1, 3])
def test_index_out_of_range(linear, index):
    with pytest.raises(ValueError, match=f"`index` must be from 0 to 2.*={index}$"):
        uncompiled_gradient(linear[0], Threat("member", index))


@pytest.mark.parametrize("kind", GRADIENTS)
def test_a_model_is_no_ensemble(linear, kind):
    with pytest.raises(ValueError, match=r"single model, Ensemble\(\[model\]\)"):
        gradient_of(kind, linear[0][0])


@pytest.mark.parametrize(
    "labels", [Y[:4], Y[None, :4], np.stack([Y, Y]), np.zeros((3, 5, 3), int)]
)
def test_labels_of_other_images_or_classifiers(linear, labels):
    message = r"of shape \(5,\), one label per image, or \(3, 5\), .* Received: shape"
    with pytest.raises(ValueError, match=message):
        gradient_of("Grad. 2", linear[0])(X, labels)


@pytest.mark.parametrize("option", ["labels", "loss"])
def test_unknown_option(option):
    with pytest.raises(ValueError, match=f"`{option}` must be one of.*{option}='hard'"):
        Gradient(ops.abs, **{option: "hard"})
