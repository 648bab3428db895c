import base64
import io

import numpy as np
import pytest
from PIL import Image

from advens.auditing import gallery as module
from advens.auditing.gallery import are_pictures, even_order, gallery
from tests.auditing.samples import ATTACKS, sample_audit


def pixels(uri):
    header, data = uri.split(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    return header, np.asarray(
        picture if picture.mode == "L" else picture.convert("RGB")
    )


def test_order_is_even_over_classes_and_fates():
    y = np.array([0, 0, 0, 1, 1, 0])
    broken_by = np.array([2, 0, -1, -1, -2, 3])
    # First one of each: class 0 fell (by any attack) and resisted, class 1 resisted and
    # was wrong. Then the second and the third of class 0 that fell.
    assert list(even_order(y, broken_by)) == [0, 2, 3, 4, 1, 5]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 8, 8, 1), True),
        ((5, 8, 6, 3), True),
        ((5, 8, 8, 2), False),
        ((5, 1, 8, 1), False),
        ((5, 8, 8), False),
        ((5, 64), False),
    ],
)
def test_what_is_a_picture(shape, expected):
    assert are_pictures(np.zeros(shape)) is expected


def test_grey_pictures():
    document, outcomes, x = sample_audit(n=1, shape=(2, 2, 1), eps=0.1)
    x[0, ..., 0] = [[0, 0.2], [0.4, 1]]
    outcomes["x_adv"] = x + np.array([[[[0.1], [-0.1]], [[0], [-0.05]]]], "float32")
    (tile,) = gallery(document, outcomes, x)
    header, original = pixels(tile.original)
    assert header == "data:image/png;base64"
    assert original.tolist() == [[0, 51], [102, 255]]
    assert pixels(tile.adversarial)[1].tolist() == [[26, 26], [102, 242]]
    (up, down), (same, half) = pixels(tile.perturbation)[1].astype(int)
    assert up[0] > 150 and up[2] < 80
    assert down[2] > 150 and down[0] < 80
    assert np.ptp(same) <= 3 and same.min() > 240
    assert down[2] - down[0] > half[2] - half[0] > 20
    assert tile.size == pytest.approx(0.1)


def test_colour_pictures_and_the_l2_norm():
    document, outcomes, x = sample_audit(n=1, shape=(2, 2, 3), eps=9.0, norm="l2")
    delta = np.zeros_like(x)
    delta[0, 0, 0] = [0.4, -0.4, 0.2]
    outcomes["x_adv"] = x + delta
    (tile,) = gallery(document, outcomes, x)
    assert tile.size == pytest.approx(0.6)
    # The largest change has the full colour; no change is grey.
    shown = pixels(tile.perturbation)[1]
    assert shown[0, 0].tolist() == [230, 25, 178]
    assert (shown[1] == 128).all()


def test_fates_and_classes():
    document, outcomes, x = sample_audit(n=60, seed=3)
    tiles = gallery(document, outcomes, x)
    assert sorted(tile.index for tile in tiles) == list(range(60))
    assert {tile.fate for tile in tiles} == {"fell", "resisted", "wrong"}
    for tile in tiles:
        i = tile.index
        assert tile.label == outcomes["y"][i]
        assert tile.clean == outcomes["clean_ensemble"][i]
        assert tile.predicted == outcomes["predicted"][i]
        assert (tile.fate == "resisted") == outcomes["robust"][i]
        assert (tile.fate == "wrong") == (tile.clean != tile.label)
        broken_by = outcomes["broken_by"][i]
        smallest = None
        if i % 2 == 0 and not outcomes["robust"][i]:
            smallest = outcomes["smallest_eps"][i // 2]
        assert tile.smallest_eps == smallest
        assert tile.attack == (ATTACKS[broken_by][0] if broken_by >= 0 else "")


def test_room_for_a_part(monkeypatch):
    document, outcomes, x = sample_audit(n=60)
    everything = gallery(document, outcomes, x)
    monkeypatch.setattr(module, "BUDGET", 30_000)
    part = gallery(document, outcomes, x)
    assert 5 < len(part) < 60
    assert part == everything[: len(part)]


def test_large_pictures_are_compressed():
    document, outcomes, x = sample_audit(n=2, shape=(224, 224, 3))
    for tile in gallery(document, outcomes, x):
        for uri in (tile.original, tile.perturbation, tile.adversarial):
            header, picture = pixels(uri)
            assert header == "data:image/jpeg;base64"
            assert picture.shape == (224, 224, 3)


def test_unchanged_and_unknown_pixels():
    document, outcomes, x = sample_audit(n=2, norm="l2")
    outcomes["x_adv"] = np.stack([x[0], np.full_like(x[1], np.nan)])
    assert len(gallery(document, outcomes, x)) == 2
