import os
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose

from advens import datasets, evaluate, load_pretrained, pretrained
from advens.models import convnet
from advens.models.architecture import Architecture

ARCHITECTURE = Architecture((8, 8, 1), ((2,),), (0.0,), 4, "same")


@pytest.mark.parametrize("name", pretrained.names())
def test_an_ensemble_is_as_accurate_as_its_card_says(name):
    card = pretrained.card(name)
    if card["dataset"] != "digits" and datasets.DATA_DIR_VARIABLE not in os.environ:
        pytest.skip("its images are not here")
    data = datasets.load(card["dataset"])
    [outcomes] = evaluate(load_pretrained(name), data.x_test, data.y_test)
    found = [*outcomes.members.mean(axis=1), outcomes.ensemble.mean()]
    want = [*card["accuracy_of_members"], card["accuracy_of_the_ensemble"]]
    # One image of the digits may be rounded otherwise on another processor.
    assert_allclose(found, want, atol=0.003)


def test_weights_are_rounded_to_float16():
    networks = [convnet.build(ARCHITECTURE, seed=seed) for seed in range(11)]
    data = pretrained.pack([network.get_weights() for network in networks])
    ensemble = pretrained.unpack(ARCHITECTURE, data)
    assert len(ensemble) == 11
    for network, member in zip(networks, ensemble, strict=True):
        for array, rounded in zip(
            network.get_weights(), member.get_weights(), strict=True
        ):
            assert rounded.dtype == "float32"
            assert_allclose(rounded, array.astype("float16"))


def test_unknown_name():
    with pytest.raises(ValueError, match=r"one of \[.*'digits_rand_ini'.*'mnist_relu'"):
        load_pretrained("mnist_relu")


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    for path in pretrained.DIRECTORY.glob("digits_rand_ini.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(pretrained, "DIRECTORY", tmp_path)
    assert len(load_pretrained("digits_rand_ini")) == 3
    path = tmp_path / "digits_rand_ini.npz"
    data = np.frombuffer(path.read_bytes(), "uint8").copy()
    data[100_000] ^= 1
    path.write_bytes(data.tobytes())
    with pytest.raises(ValueError, match="digits_rand_ini.npz is damaged"):
        load_pretrained("digits_rand_ini")
