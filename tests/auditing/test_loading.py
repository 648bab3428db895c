"""Models from files: each kind, and each that is refused."""

import pickle
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops

from advens import Ensemble, Threat, fgsm, gradient
from advens.auditing.loading import expand, load_models
from advens.auditing.saved_model import check_gradient, load_saved_model

SHAPE = (4, 4, 1)
X = np.random.default_rng(0).uniform(size=(5, *SHAPE)).astype("float32")
BUILDER = """
import keras
from keras import layers

def build(units=5):
    inputs = keras.Input((4, 4, 1))
    x = layers.Dropout(0.5)(layers.Flatten()(inputs))
    x = layers.BatchNormalization()(layers.Dense(units, "relu")(x))
    return keras.Model(inputs, layers.Dense(3, "softmax")(x))

def fewer():
    model = build()
    return keras.Model(model.inputs, model.layers[-2].output)

def wider():
    return build(6)

def unbuilt():
    return keras.Sequential([layers.Dense(3)])

def nothing():
    pass

def needs(argument):
    return build()

def fails():
    raise KeyError("lost")
"""

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's"
)


@keras.saving.register_keras_serializable("tests")
class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Work in a directory that has the module `builders`, and return it."""
    (tmp_path / "builders.py").write_text(BUILDER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("builders", None)


@pytest.fixture
def model():
    """Return a model of `builders.build` as after a training."""
    import builders

    model = builders.build()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 0.5, v.shape) for v in model.weights])
    return model


def with_layer(layer):
    model = [keras.Input(SHAPE), layer, layers.Flatten(), layers.Dense(3)]
    return keras.Sequential(model)


def check_same(model, loaded):
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5)
    assert np.ptp(ops.convert_to_numpy(model(X)), axis=0).max() > 0.01


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.hdf5"])
def test_whole_models(directory, model, name):
    model.save(directory / name)
    [loaded] = load_models([directory / name])
    check_same(model, loaded)
    assert not loaded.compiled


def test_directory_of_a_keras_model(directory, model):
    keras.saving.save_model(model, directory / "a", zipped=False)
    check_same(model, load_models([directory / "a"])[0])


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras", "a.h5"])
def test_weights_of_a_builder(directory, model, name):
    if name == "a.weights.h5":
        model.save_weights(directory / name)
    else:
        model.save(directory / name)
    loaded = load_models([directory / name] * 2, builder="builders:build")
    check_same(model, loaded[0])
    check_same(model, loaded[1])
    assert loaded[0] is not loaded[1]


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras", "a.h5"])
@pytest.mark.parametrize("function", ["fewer", "wider"])
@pytest.mark.filterwarnings("error:Skipping")
def test_weights_of_another_model(directory, model, name, function):
    (model.save_weights if "weights" in name else model.save)(directory / name)
    with pytest.raises(ValueError, match=f"{name} must hold the weights of the model"):
        load_models([directory / name], builder=f"builders:{function}")


def test_weights_without_a_builder(directory, model):
    model.save_weights(directory / "a.weights.h5")
    with pytest.raises(ValueError, match="holds weights without a model. Pass --buil"):
        load_models([directory / "a.weights.h5"])


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("builders", "must be module:function"),
        (":build", "must be module:function"),
        ("absent:build", "ModuleNotFoundError: No module named 'absent'"),
        ("builders:absent", "AttributeError: .*no attribute 'absent'"),
        ("builders:needs", "TypeError: .* missing 1 required"),
        ("builders:fails", "KeyError: 'lost'"),
        ("builders:nothing", "returns a built Keras model.* which returns None"),
        ("builders:unbuilt", "returns a built Keras model"),
    ],
)
def test_builders(directory, model, builder, message):
    model.save_weights(directory / "a.weights.h5")
    with pytest.raises(ValueError, match=message):
        load_models([directory / "a.weights.h5"], builder=builder)


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_python_code_is_only_loaded_with_trust(directory, name):
    model = with_layer(layers.Lambda(lambda x: 2 * x))
    model.save(directory / name)
    with pytest.raises(ValueError, match="holds Python code.* pass --trust"):
        load_models([directory / name])
    [loaded] = load_models([directory / name], trust=True)
    check_same(model, loaded)


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_unknown_layers(directory, monkeypatch, name):
    with_layer(Twice()).save(directory / name)
    load_models([directory / name])
    monkeypatch.delitem(keras.saving.get_custom_objects(), "tests>Twice")
    with pytest.raises(ValueError, match="holds '.*Twice', which Keras does not know"):
        load_models([directory / name])


def test_ensembles_are_no_members(directory, model):
    Ensemble([model]).save(directory / "e.keras")
    with pytest.raises(ValueError, match="holds an ensemble. Save each of its members"):
        load_models([directory / "e.keras"])


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_models(directory, model, name, damage):
    path = directory / name
    model.save(path)
    data = bytearray(path.read_bytes())
    damaged = {"cut": data[: len(data) // 2], "empty": b"", "text": b"no model"}
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=f"{path} is damaged") as error:
        load_models([path])
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_wrong_bit(directory, model):
    # HDF5 files have no checksums.
    model.save(directory / "a.keras")
    data = bytearray((directory / "a.keras").read_bytes())
    for position in (1000, len(data) // 2):
        data[position] ^= 1
        (directory / "a.keras").write_bytes(data)
        with pytest.raises(ValueError, match="a.keras is damaged"):
            load_models([directory / "a.keras"])
        data[position] ^= 1


def test_zip_archive_of_something_else(directory):
    with zipfile.ZipFile(directory / "a.keras", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(1))
    with pytest.raises(ValueError, match="is damaged, or not of this version"):
        load_models([directory / "a.keras"])


@pytest.mark.parametrize("name", ["a.pkl", "a.keras", "a.h5", "a.pt", "a"])
@pytest.mark.parametrize("builder", [None, "builders:build"])
def test_no_pickle_is_loaded(directory, name, builder):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the file was unpickled",)

    (directory / name).write_bytes(pickle.dumps(Trap()))
    message = "pickled models are not loaded|is damaged|must hold the weights"
    with pytest.raises(ValueError, match=message):
        load_models([directory / name], builder=builder, trust=True)


def test_files_that_are_not_there(directory):
    for builder in (None, "builders:build"):
        with pytest.raises(OSError, match="Cannot read .*none.keras: No such file"):
            load_models([directory / "none.keras"], builder=builder)
    with pytest.raises(ValueError, match="A model must be a .keras or .h5 file"):
        load_models([directory])


def test_expand(directory):
    for name in ("b.keras", "a.keras", "[c].keras", "sub/d.keras"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).touch()

    def names(*patterns):
        return [str(path) for path in expand(patterns)]

    assert names("b.keras", "a.keras") == ["b.keras", "a.keras"]
    assert names("?.keras") == ["a.keras", "b.keras"]
    assert names("[c].keras") == ["[c].keras"]
    assert names("**/d.keras", "a.keras") == ["sub/d.keras", "a.keras"]
    assert names("none.keras") == ["none.keras"]  # refused when it is loaded
    with pytest.raises(ValueError, match=r"No file matches n\*.keras"):
        names("n*.keras")
    with pytest.raises(ValueError, match="named once. Received twice: a.keras"):
        names("?.keras", "./a.keras")


def save_function(path, function, shape=(None, *SHAPE), dtype="float32", **kwargs):
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(np.ones((16, 3), "float32"))
    flat = tf.function(lambda x: function(x, module.kernel), autograph=False)
    module.call = flat.get_concrete_function(tf.TensorSpec(shape, dtype))
    tf.saved_model.save(module, str(path), signatures=module.call, **kwargs)


def linear(x, kernel):
    return ops.reshape(x, (-1, 16)) @ kernel


@tensorflow_only
@pytest.mark.parametrize("by", ["export", "saved_model"])
def test_saved_models(directory, model, by):
    import tensorflow as tf

    if by == "export":
        model.export(directory / "s", verbose=False)
    else:
        tf.saved_model.save(model, str(directory / "s"))
    [loaded] = load_models([directory / "s"])
    check_same(model, loaded)
    check_gradient(directory / "s", loaded, X)
    with pytest.raises(ValueError, match="Cannot tell whether"):
        Ensemble([loaded])
    # Its gradient is the model's.
    y = np.array([0, 1, 2, 0, 1])
    adversarial = [
        fgsm(gradient(ensemble, Threat("ensemble")), X, y, eps=0.1)
        for ensemble in (Ensemble([model]), Ensemble([loaded], outputs="probs"))
    ]
    np.testing.assert_allclose(adversarial[0].x_adv, adversarial[1].x_adv, atol=1e-6)
    np.testing.assert_allclose(np.abs(adversarial[0].x_adv - X).max(), 0.1, rtol=1e-5)


@tensorflow_only
def test_saved_model_of_any_image_size(directory):
    save_function(
        directory / "s",
        lambda x, kernel: ops.mean(x, (1, 2)) @ kernel[:1],
        (None, None, None, 1),
    )
    loaded = load_saved_model(directory / "s")
    assert loaded.input_shape == (None, None, None, 1)
    np.testing.assert_allclose(loaded(X)[:, 0], X.mean((1, 2, 3)), rtol=1e-5)
    check_gradient(directory / "s", loaded, X)


@tensorflow_only
@pytest.mark.parametrize(
    ("shape", "dtype", "received"),
    [
        ((1, *SHAPE), "float32", r"float32 \(1, 4, 4, 1\)"),
        ((None, *SHAPE), "uint8", r"uint8 \(None, 4, 4, 1\)"),
        (None, "float32", "float32"),
    ],
)
def test_saved_models_of_other_inputs(directory, shape, dtype, received):
    def function(x, kernel):
        return linear(ops.cast(x, "float32"), kernel)

    save_function(directory / "s", function, shape, dtype)
    with pytest.raises(ValueError, match=f"one float32 tensor.* Received: {received}"):
        load_models([directory / "s"])


@tensorflow_only
def test_saved_models_that_serve_nothing(directory, model):
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(directory / "s"))
    with pytest.raises(ValueError, match="must be a SavedModel that serves 'serving_d"):
        load_models([directory / "s"])
    (directory / "s" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="must be a SavedModel that serves"):
        load_models([directory / "s"])


@tensorflow_only
def test_saved_models_without_a_gradient(directory, monkeypatch):
    save_function(directory / "s", lambda x, k: linear(ops.round(255 * x), k))
    loaded = load_saved_model(directory / "s")
    with pytest.raises(ValueError, match="s has no gradient .* .it is exactly 0."):
        check_gradient(directory / "s", loaded, X)


@tensorflow_only
@pytest.mark.parametrize("saved", [True, False])
def test_saved_models_with_a_gradient_of_their_own(directory, saved):
    import tensorflow as tf

    @tf.custom_gradient
    def squared(x):
        return x * x, lambda upstream: 2 * x * upstream

    options = tf.saved_model.SaveOptions(experimental_custom_gradients=saved)
    function = lambda x, kernel: linear(squared(x), kernel)  # noqa: E731
    save_function(directory / "s", function, options=options)
    loaded = load_saved_model(directory / "s")
    if saved:
        check_gradient(directory / "s", loaded, X)
    else:
        with pytest.raises(ValueError, match="has no gradient") as error:
            check_gradient(directory / "s", loaded, X)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow can")
def test_other_backends_have_no_saved_models(directory):
    (directory / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="is a SavedModel.* KERAS_BACKEND=jax"):
        load_models([directory])


def test_the_gradients_of_other_models_are_left_to_the_audit(directory):
    check_gradient(directory / "a.keras", with_layer(layers.Rescaling(0.0)), X)
