import numpy as np
from numpy.testing import assert_array_equal

from advens.strauss2017.cells import Cell, pack_cells, unpack_cells


def bits(*strings):
    return np.array([[c == "1" for c in s] for s in strings])


def test_accuracy_is_the_mean_over_members_and_images():
    cell = Cell("mnist", "BIM", "bagging", "grad1_single", bits("1100", "1000"))
    assert cell.accuracy == 3 / 8


def test_packed_cells_are_unpacked_as_they_were():
    zero = bits("0000", "0001")
    cells = [
        Cell("mnist", "FGSM", "bagging", "no_attack_single", bits("1111", "1110")),
        Cell("mnist", "FGSM", "bagging", "grad1_single", bits("1000", "1100"), zero),
    ]
    y_test = np.array([3, 1, 4, 1])
    arrays = pack_cells(cells, y_test)
    assert_array_equal(arrays["y_test"], y_test)
    again = unpack_cells(arrays)
    for cell, unpacked in zip(cells, again, strict=True):
        for name in ("dataset", "attack", "row", "column"):
            assert getattr(cell, name) == getattr(unpacked, name)
        assert_array_equal(cell.correct, unpacked.correct)
    assert again[0].zero_gradient is None
    assert_array_equal(again[1].zero_gradient, zero)


def test_the_papers_numbers_are_looked_up():
    right = bits("1")
    assert (
        Cell("cifar10", "BIM", "gauss_noise", "grad2_ensemble", right).paper == 0.7277
    )
    assert Cell("digits", "BIM", "bagging", "grad2_ensemble", right).paper is None
    assert Cell("mnist", "BIM", "bagging", "ensemble_gradient", right).paper is None
    assert Cell("mnist", "BIM", "bagging+adv_train", "bim", right).paper == 0.9840
    assert Cell("mnist", "BIM", "mix_mod+adv_train", "bim", right).paper is None
