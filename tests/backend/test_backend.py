import functools
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from advens import backend
from advens.attacks.threat import Attack, Threat
from advens.backend.program_cache import ProgramCache
from advens.evaluation.evaluate import evaluate
from advens.models.ensemble import Ensemble


def test_name_is_that_of_keras():
    assert backend.name() == keras.backend.backend()


@pytest.mark.parametrize("other", ["torch", "openvino"])
def test_other_backends_are_refused(monkeypatch, other):
    monkeypatch.setattr(keras.backend, "backend", lambda: other)
    message = f"must be 'tensorflow' or 'jax'. Received: '{other}'"
    for function in (backend.name, backend.on_gpu, backend.use_xla):
        with pytest.raises(NotImplementedError, match=message):
            function()
    with pytest.raises(NotImplementedError, match=message):
        backend.compile(ops.abs, keras.Sequential())
    with pytest.raises(NotImplementedError, match=message):
        backend.input_gradient(ops.abs, np.ones(3))


def test_devices():
    assert len(backend.devices()) >= 1


def test_a_compiled_function_is_traced_once_per_shape():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False)])
    traces = []

    def function(x):
        traces.append(x.shape)
        return 10 * model(x)

    compiled = backend.compile(function, model)
    for kernel in (np.ones((3, 2)), np.arange(6.0).reshape(3, 2)):
        # The weights are those of the moment.
        model.set_weights([kernel])
        for n in (4, 1, 4):
            x = np.arange(3.0 * n, dtype="float32").reshape(n, 3)
            got = compiled(ops.convert_to_tensor(x))
            assert_allclose(got, 10 * x @ kernel, rtol=1e-6)
    assert len(traces) == 2


def test_vjp_by_hand():
    """The Jacobian of (x0 x1, 3 x1) at (2, 5) is ((5, 2), (0, 3))."""
    x = ops.convert_to_tensor([2.0, 5.0])
    value, product = backend.vjp(lambda x: ops.stack([x[0] * x[1], 3 * x[1]]), x)
    assert_array_equal(value, [10, 15])
    assert_array_equal(product(ops.convert_to_tensor([10.0, 1.0])), [50, 23])


def test_input_gradient_by_hand():
    x = np.array([[1, 2], [3, -1]], "float32")
    # Of x1² + 3 x1 x2: (2 x1 + 3 x2, 3 x1).
    got = backend.input_gradient(lambda x: x[:, 0] ** 2 + 3 * x[:, 0] * x[:, 1], x)
    assert_allclose(got, [[8, 3], [3, 9]], rtol=1e-6)
    assert_array_equal(
        backend.input_gradient(lambda x: ops.ones(2), x), np.zeros((2, 2))
    )


def test_programs_of_eight_shapes_are_kept():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    traces = []
    compiled = backend.compile(lambda x: traces.append(x.shape) or model(x), model)
    for n in (*range(1, 11), *range(3, 11)):
        assert compiled(ops.ones((n, 3))).shape == (n, 2)
    assert len(traces) == 10
    compiled(ops.ones((1, 3)))
    assert len(traces) == 11


def test_a_program_computes_from_the_weights_of_any_model():
    models = [keras.Sequential([keras.Input((2,)), layers.Dense(1)]) for _ in range(2)]
    traces = []

    def function(x, factor):
        traces.append(1)
        return factor * models[0](x)

    program = backend.compile_for_any(function, models[0].weights)
    x = ops.convert_to_tensor([[1.0, 2.0]])
    models[0].set_weights([np.array([[1.0], [1.0]]), np.array([0.5])])
    models[1].set_weights([np.array([[0.0], [3.0]]), np.array([-1.0])])
    assert_array_equal(program(models[0].weights, x, 2), [[7]])
    assert_array_equal(program(models[1].weights, x, 2), [[10]])
    models[1].layers[0].bias.assign([0.0])
    assert_array_equal(program(models[1].weights, x, 2), [[12]])
    assert len(traces) == 1
    # Python values are constants of the program.
    assert_array_equal(program(models[1].weights, x, 1), [[6]])
    assert len(traces) == 2
    assert_array_equal(models[0](x), [[3.5]])


def test_one_program_is_traced_at_a_time():
    """Also if one compiled function calls another."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    tracing, together = [], []

    def function(x):
        tracing.append(1)
        time.sleep(0.02)
        together.append(len(tracing))
        tracing.pop()
        return model(x)

    inner = [backend.compile(lambda x: function(x), model) for _ in range(4)]
    outer = [backend.compile(lambda x, f=f: f(x) + 1, model) for f in inner]
    x = ops.ones((2, 3))
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda compiled: compiled(x), outer))
    assert together == [1] * 4
    for value in got:
        assert_allclose(value, model(x) + 1, rtol=1e-6)


def always_dropping(seed):
    inputs = keras.Input((100,))
    return keras.Model(inputs, layers.Dropout(0.5, seed=seed)(inputs, training=True))


def test_every_call_draws_anew():
    def drawn():
        model = always_dropping(seed=7)

        def twice(x):
            return ops.stack([model(x), model(x)])

        compiled = backend.compile(twice, model)
        x = ops.ones((1, 100))
        return np.concatenate([ops.convert_to_numpy(compiled(x)) for _ in range(3)])

    got = drawn()
    assert set(got.ravel()) == {0, 2}
    # Three calls of two draws: no two are the same, nor much alike.
    for i in range(6):
        for j in range(i):
            assert 0.3 < np.mean(got[i] == got[j]) < 0.7
    assert_array_equal(drawn(), got)


def test_the_states_of_silent_layers_stay():
    model = keras.Sequential(
        [keras.Input((3,)), layers.BatchNormalization(), layers.Dropout(0.5, seed=1)]
    )
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    values = [variable.value for variable in model.variables]
    compiled = backend.compile(lambda x: model(x, training=False), model)
    compiled(ops.ones((2, 3)))
    assert len(before) == 5
    for variable, old, value in zip(model.variables, before, values, strict=True):
        assert_array_equal(ops.convert_to_numpy(variable), old)
        assert variable.value is value


@pytest.mark.skipif(backend.name() != "jax", reason="TensorFlow finds all variables")
def test_a_seed_generator_that_no_layer_holds():
    generator = keras.random.SeedGenerator(1)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    compiled = backend.compile(
        lambda x: model(x) + keras.random.normal((2,), seed=generator), model
    )
    with pytest.raises(ValueError, match="SeedGenerator that is no attribute"):
        compiled(ops.ones((1, 3)))


def test_only_values_are_known():
    known = []

    def function(x):
        known.append(backend.is_known(x))
        return x

    backend.compile(function, keras.Sequential())(ops.ones(2))
    function(ops.ones(2))
    function(np.ones(2))
    assert known == [False, True, True]


def keep(cache, *keys):
    return [cache.get(key, functools.partial(object)) for key in keys]


def test_a_program_is_made_once():
    cache, made = ProgramCache(3), []

    def make():
        made.append(object())
        return made[-1]

    assert cache.get("a", make) is cache.get("a", make) is made[0]
    assert cache.get(("a", 1), make) is made[1]
    assert len(made) == len(cache) == 2


def test_the_least_recently_used_program_goes_first():
    cache = ProgramCache(3)
    a, b, c = keep(cache, "a", "b", "c")
    assert keep(cache, "a") == [a]
    [d] = keep(cache, "d")
    assert len(cache) == 3
    # "b" was used longest ago: it is made anew, in the place of "c".
    assert keep(cache, "a", "d") == [a, d]
    assert keep(cache, "b") != [b]
    assert keep(cache, "a", "d") == [a, d]
    assert keep(cache, "c") != [c]


def test_a_cache_never_exceeds_its_size():
    cache = ProgramCache(5)
    for key in range(50):
        keep(cache, key, key // 2)
        assert len(cache) <= 5


def test_a_program_that_went_is_freed():
    cache = ProgramCache(1)
    gone = weakref.ref(cache.get("a", lambda: lambda: 0))
    assert gone() is not None
    cache.get("b", lambda: lambda: 1)
    gc.collect()
    assert gone() is None


def test_a_program_that_cannot_be_made_is_not_kept():
    cache = ProgramCache(3)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert len(cache) == 0
    assert keep(cache, "a") == keep(cache, "a")


def test_making_one_program_may_need_another():
    """An attack's program needs the members' inference. No thread waits for itself."""
    cache = ProgramCache(3)
    inner = object()
    outer = cache.get("outer", lambda: (cache.get("inner", lambda: inner),))
    assert outer == (inner,)
    assert len(cache) == 2


def test_threads_share_a_cache():
    cache, wrong = ProgramCache(4), []

    def use(seed):
        for key in np.random.default_rng(seed).integers(8, size=2000).tolist():
            if cache.get(key, lambda key=key: ("program", key)) != ("program", key):
                wrong.append(key)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) == 4


def test_a_sweep_over_threats_does_not_fill_the_memory(linear):
    """Every threat has a program of its own, of which an ensemble keeps some."""
    members = linear[0].members
    ensemble = Ensemble(members)
    size = ensemble.programs.size
    assert size == 32 + 8 * 3
    x, y = np.full((1, 2, 2, 1), 0.5, "float32"), np.array([1])
    ensemble.programs.size = 4
    attacks = [Attack("FGSM", 0.3, 0.3, 1)]
    for threat in (
        *(Threat("member", index) for index in range(3)),
        *(Threat("ensemble", labels=labels) for labels in ("true", "predicted")),
    ):
        got = evaluate(ensemble, x, y, threat=threat, attacks=attacks)
        assert len(ensemble.programs) <= 4
        again = Ensemble(members)
        want = evaluate(again, x, y, threat=threat, attacks=attacks)
        assert_array_equal(got[0].members, want[0].members)
