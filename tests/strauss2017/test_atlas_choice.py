import itertools
import json

import numpy as np
import pandas as pd
import pytest

from advens.strauss2017.atlas_choice import (
    choose_labels,
    departures,
    distances,
    winner,
)

READING = {
    "logits": "linear",
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "momentum": None,
    "decay": None,
    "box": True,
}
CLEAN = ("no_attack_single", "no_attack_ensemble")
ATTACKED = ("grad1_single", "grad1_ensemble", "grad2_ensemble")


def atlas_rows(differences, *, loss="logits", **reading):
    """Return an atlas of one reading; differences by (attack, column, labels)."""
    common = {
        **READING,
        "num_members": 5,
        "seed": 0,
        "restarts": 0,
        "lost_classes": 0,
        **reading,
        "loss": loss,
    }
    rows = [
        {**common, "attack": "FGSM", "column": column, "labels": "", "difference": 0.01}
        for column in CLEAN
    ]
    modes = ("true", "predicted", "repredicted")
    for attack, column, labels in itertools.product(("FGSM", "BIM"), ATTACKED, modes):
        difference = differences.get((attack, column, labels), 0.5)
        rows.append(
            {
                **common,
                "attack": attack,
                "column": column,
                "labels": labels,
                "difference": difference,
            }
        )
    return pd.DataFrame(rows).assign(paper=0.5)


NEAR = {
    ("FGSM", "grad1_single", "true"): 0.02,
    ("FGSM", "grad1_ensemble", "true"): -0.04,
    ("BIM", "grad1_single", "predicted"): 0.1,
    ("BIM", "grad1_ensemble", "predicted"): -0.1,
    ("FGSM", "grad2_ensemble", "true"): 0.03,
    ("FGSM", "grad2_ensemble", "predicted"): 0.035,
    ("BIM", "grad2_ensemble", "repredicted"): -0.2,
}


def test_labels_are_chosen_by_the_distance_of_all_cells_of_a_kind():
    chosen = choose_labels(atlas_rows(NEAR))
    # Two clean cells of .01, and one number of each other cell, by hand.
    total = 0.01 + 0.01 + 0.02 + 0.04 + 0.1 + 0.1 + 0.035 + 0.2
    assert chosen["distance"] == pytest.approx(total / 8, abs=1e-12)
    assert chosen["fgsm_grad1"] == "true"
    assert chosen["bim_grad1"] == "predicted"
    # True labels lie nearer, but by less than .01: then the library's are taken.
    assert chosen["fgsm_grad2"] == "predicted"
    assert chosen["bim_grad2"] == "repredicted"


def test_a_kind_with_two_cells_is_equal_only_if_both_are():
    almost = {
        ("FGSM", "grad1_single", "predicted"): 0.025,
        ("FGSM", "grad1_ensemble", "predicted"): -0.055,
    }
    assert choose_labels(atlas_rows({**NEAR, **almost}))["fgsm_grad1"] == "true"


def test_distances_are_of_the_asked_loss_and_sorted():
    atlas = pd.concat(
        [
            atlas_rows(NEAR, batch_size=64),
            atlas_rows({**NEAR, ("FGSM", "grad1_single", "true"): 0.01}),
            atlas_rows({}, loss="exact"),
        ]
    )
    nearest, second = distances(atlas)
    assert (nearest["batch_size"], second["batch_size"]) == (32, 64)
    assert nearest["momentum"] is None
    json.dumps(nearest)  # as the addresses of members need it
    assert second["distance"] - nearest["distance"] == pytest.approx(0.01 / 8)
    [exact] = distances(atlas, loss="exact")
    assert exact["distance"] == pytest.approx((0.02 + 6 * 0.5) / 8)


def test_there_are_no_distances_without_the_paper():
    assert distances(atlas_rows(NEAR).assign(paper=np.nan)) == []


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 0),
        ({"logits": "relu"}, 1),
        ({"batch_size": 64, "box": False}, 2),
        ({"momentum": 0.9, "decay": 0.001}, 1),
    ],
)
def test_departures_from_the_usage_of_2017(changes, count):
    assert departures({**READING, **changes}) == count


def judged(distance, **changes):
    return {**READING, "seed": 0, **changes, "distance": distance}


def test_of_readings_that_count_as_equal_the_usual_one_wins():
    first = [judged(0.05), judged(0.03, batch_size=64), judged(0.04, logits="relu")]
    # The largest change is .02: only what is less than .02 behind counts as equal.
    for distances_again, best in (((0.035, 0.02, 0.02), 0), ((0.041, 0.02, 0.025), 1)):
        second = [
            {**reading, "distance": distance, "seed": 1}
            for reading, distance in zip(first, distances_again, strict=True)
        ]
        assert winner([*second, *first]) == second[best]
        assert winner([*second[:2], *first]) is None
    assert winner([]) is None
