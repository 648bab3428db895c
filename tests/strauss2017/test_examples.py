import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from advens.attacks.compiled import gradient
from advens.attacks.fgsm_bim import bim
from advens.attacks.threat import Threat
from advens.datasets import load
from advens.storage.store import Store
from advens.strauss2017.examples import choose_examples, figure1_examples
from advens.strauss2017.run import Run
from advens.strauss2017.settings import Settings, paper_attacks
from advens.training.members import load_ensemble


def test_the_first_image_that_is_right_and_then_fooled_is_chosen():
    y = np.array([1, 0, 0, 0, 1, 1, 3, 3, 4, 4, 5, 5])
    right = np.array([1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0], bool)
    attacked = np.array([1, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1], bool)
    # Class 3 is never fooled when right; 4 and 5 are never right.
    assert_array_equal(choose_examples(y, right, attacked), [3, 4, 7, 9, 10])


def test_figure1_examples(tmp_path):
    dataset = load("digits").subset(700, 40)
    run = Run(
        dataset=dataset,
        settings=Settings.for_dataset("digits", epochs=2),
        attacks=paper_attacks("digits"),
        store=Store(tmp_path),
    )
    examples = figure1_examples(run)
    # Once more, by hand: member 0 of Rand. Ini. in Table 2.
    network = load_ensemble(run.members("rand_ini")[:1], run.store)
    x, y = dataset.x_test, dataset.y_test
    follow = gradient(network, Threat("member", 0, loss="logits"))
    x_adv = bim(follow, x, y, eps=0.1, step_size=0.0125, num_steps=8).x_adv
    before, after = (network.predict_on_batch(i).argmax(-1) for i in (x, x_adv))
    assert set(y) == set(range(10))
    num_fooled = 0
    for label, index in enumerate(examples.indices):
        of_class = [i for i in range(40) if y[i] == label]
        fooled = [i for i in of_class if before[i] == label != after[i]]
        if fooled:
            assert index == fooled[0]
            num_fooled += 1
        else:
            words = [shortfall.split()[0] for shortfall in examples.shortfalls]
            assert str(label) in words
    assert num_fooled >= 5
    assert_array_equal(examples.before, before[examples.indices])
    assert_array_equal(examples.after, after[examples.indices])
    assert_allclose(examples.x_adv, np.array(x_adv)[examples.indices], atol=0.03)
    assert abs(examples.x_adv - x[examples.indices]).max() <= 0.1 + 1e-6
    assert "train_images=700 of 1437" in examples.deviations
