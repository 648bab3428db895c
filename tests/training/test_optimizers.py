import keras
import numpy as np
import pytest

from advens import backend
from advens.training.optimizers import FusedAdam, make_optimizer


def test_optimizer_by_name():
    optimizer = make_optimizer("sgd", 0.25)
    assert type(optimizer) is keras.optimizers.SGD
    assert float(optimizer.learning_rate) == 0.25


@pytest.mark.parametrize("name", ["adam", "Adam"])
def test_adam_is_fused_where_there_is_a_kernel(name):
    optimizer = make_optimizer(name, 0.25)
    fused = not backend.use_xla()
    assert type(optimizer) is (FusedAdam if fused else keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == 0.25
    # Variants of Adam have formulas of their own.
    assert type(make_optimizer("adamw", 0.25)) is keras.optimizers.AdamW


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="`optimizer` must be the name") as error:
        make_optimizer("adamant", 0.25)
    assert str(error.value).endswith("Received: optimizer='adamant'")


def test_decay_is_that_of_keras_in_2017():
    optimizer = make_optimizer("sgd", 0.01, momentum=0.9, decay=0.001)
    rates = []
    for step in (0, 1, 1000):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.01, 0.01 / 1.001, 0.005], rtol=1e-6)
    assert optimizer.momentum == 0.9


def test_an_optimizer_without_momentum_is_an_error():
    with pytest.raises(ValueError, match="`momentum` is not an option of .*'adam'"):
        make_optimizer("adam", 0.001, momentum=0.9)
