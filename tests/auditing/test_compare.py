import copy
import json

import numpy as np
import pytest

from advens.auditing.compare import compare
from tests.auditing.samples import sample_audit


@pytest.fixture
def audits():
    """Return two audits of the same 12 images."""
    document, outcomes, _ = sample_audit(n=12)
    outcomes["y"] = np.zeros(12, int)
    outcomes["clean_ensemble"] = np.zeros(12, int)
    outcomes["robust"] = np.arange(12) < 6
    return document, outcomes, copy.deepcopy(document), copy.deepcopy(outcomes)


def test_worked_out_by_hand(audits):
    document, outcomes, other, other_outcomes = audits
    # Of the images 0 to 5 the other ensemble has only 0; it alone has 11.
    other_outcomes["robust"] = np.isin(np.arange(12), [0, 11])
    clean, robust = compare(document, outcomes, other, other_outcomes)["accuracies"]
    assert (robust["only_this"], robust["only_other"]) == (5, 1)
    # McNemar: 2 (1 + 6) / 2⁶.
    assert robust["p_value"] == pytest.approx(14 / 64)
    # Bonett and Price: (6 - 2) / 14 ± 1.96 sqrt(((6 + 2) / 14 - (4 / 14)²) / 14).
    difference = robust["difference"]
    assert difference["value"] == pytest.approx(4 / 12)
    assert difference["low"] == pytest.approx(4 / 14 - 1.959964 * 0.187044, abs=1e-5)
    assert difference["high"] == pytest.approx(4 / 14 + 1.959964 * 0.187044, abs=1e-5)
    assert clean["difference"]["value"] == 0
    assert clean["p_value"] == 1


def test_the_other_way_round(audits):
    audits[3]["robust"] = np.isin(np.arange(12), [0, 11])
    there = compare(*audits)["accuracies"][1]
    back = compare(*audits[2:], *audits[:2])["accuracies"][1]
    assert back["p_value"] == there["p_value"]
    assert back["only_this"] == there["only_other"]
    assert back["difference"]["low"] == pytest.approx(-there["difference"]["high"])


def test_settings_side_by_side(audits):
    document, outcomes, other, other_outcomes = audits
    same = compare(*audits)
    assert same["same_threat"] and same["trusted"] == [True, True]
    other["settings"]["eps"] = 0.3
    other["trusted"] = False
    del other["members"][0]
    result = compare(*audits)
    assert not result["same_threat"] and result["trusted"] == [True, False]
    differing = {
        row["name"]: (row["this"], row["other"])
        for row in result["settings"]
        if row["this"] != row["other"]
    }
    assert differing == {"eps": (0.1, 0.3), "members": (3, 2)}
    assert result["eps_curves"] == [document["curves"]["eps"]] * 2
    other["curves"] = None
    assert compare(*audits)["eps_curves"][1] == []
    json.dumps(result)


def test_other_images_are_refused(audits):
    audits[2]["data"] = {"file": None, "sha256": "ff" * 32}
    with pytest.raises(ValueError, match="Received: data whose sha256 is 0{12}… and f"):
        compare(*audits)


def test_other_labels_are_refused(audits):
    audits[3]["y"] = np.ones(12, int)
    with pytest.raises(ValueError, match="the same images with the same labels"):
        compare(*audits)
