import dataclasses

import pytest

from advens.attacks.threat import Threat
from advens.strauss2017 import columns, constants
from advens.strauss2017.readings import (
    DEFAULT,
    LABELS,
    PRINTED,
    READINGS,
    Reading,
    columns_read,
)
from advens.strauss2017.settings import Settings, paper_attacks

ATTACKS = paper_attacks("mnist")
MIXED = {
    "fgsm_grad1": "true",
    "bim_grad1": "predicted",
    "fgsm_grad2": "predicted",
    "bim_grad2": "repredicted",
}


def test_each_reading_has_an_answer_for_each_data_set():
    assert DEFAULT in READINGS
    for name, by_dataset in READINGS.items():
        assert set(by_dataset) == set(constants.EPOCHS)
        for dataset, reading in by_dataset.items():
            assert reading.name in (name, "printed")
            assert set(reading.labels) == set(LABELS)
            assert reading.training(dataset).dataset == dataset
            assert all(a.box == reading.box for a in reading.attacks(dataset))


def test_printed_is_tables_1_and_3_word_for_word():
    for dataset in constants.EPOCHS:
        assert PRINTED.training(dataset) == Settings.for_dataset(dataset)
        assert PRINTED.attacks(dataset) == paper_attacks(dataset)
        assert PRINTED.training(dataset).logits == "relu"


def test_a_reading_changes_settings_and_is_overridden():
    reading = Reading("a", {"logits": "linear", "batch_size": 32}, box=True)
    settings = reading.training("mnist", batch_size=8)
    assert (settings.logits, settings.batch_size) == ("linear", 8)
    assert reading.training("mnist", batch_size=None).batch_size == 64
    assert [a.box for a in reading.attacks("mnist")] == [True, True]
    assert [a.box for a in reading.attacks("mnist", box=False)] == [False, False]


def named(table, labels):
    return {column.name: column for column in columns_read(table, labels)}


def test_labels_of_each_attack_and_gradient():
    table2, table4 = named("table2", MIXED), named("table4", MIXED)
    for name in ("grad1_single", "grad1_ensemble", "grad1_single_exact"):
        column = table2[name]
        assert column.labels_under("FGSM") == "true"
        assert column.labels_under("BIM") == "predicted"
    for name in ("grad2_ensemble", "grad2_ensemble_exact"):
        assert table2[name].labels_under("FGSM") == "predicted"
        assert table2[name].labels_under("BIM") == "repredicted"
    assert table4["fgsm"].threats("FGSM", 1) == [
        Threat("mean_member", labels="predicted", loss="logits")
    ]
    assert table4["bim"].threats("BIM", 1) == [
        Threat("mean_member", labels="repredicted", loss="logits")
    ]
    # The ensemble's own gradient is not the paper's: its labels are always true.
    assert table2["ensemble_gradient"] == columns.BY_NAME["ensemble_gradient"]


@pytest.mark.parametrize(
    ("bim_grad2", "left_out"),
    [
        ("true", {"grad2_ensemble_true", "bim_true"}),
        ("repredicted", {"grad2_ensemble_repredicted", "bim_repredicted"}),
        ("predicted", set()),
    ],
)
def test_other_labels_that_show_the_same_are_left_out(bim_grad2, left_out):
    labels = {**MIXED, "bim_grad2": bim_grad2}
    for table, entries in columns.TABLES.items():
        names = [column.name for column in entries if column.name not in left_out]
        assert list(named(table, labels)) == names


def test_exact_gradients_are_made_where_all_columns_are_asked_for():
    for labels in (PRINTED.labels, MIXED):
        every = columns_read("table2", labels)
        some = columns_read("table2", labels, "default")
        left_out = [column.name for column in every if column not in some]
        assert left_out == [
            *("grad1_single_exact", "grad1_ensemble_exact", "grad2_ensemble_exact")
        ]
        assert columns_read("table2", labels, "all") == every
        table4 = columns_read("table4", labels)
        assert columns_read("table4", labels, "default") == table4


def test_an_attack_follows_only_its_own_labels():
    column = named("table2", MIXED)["grad1_single"]
    fgsm, bim = ATTACKS
    assert columns.threats([column], ATTACKS, 2) == {
        Threat("member", 0, "true", "logits"): [fgsm],
        Threat("member", 1, "true", "logits"): [fgsm],
        Threat("member", 0, "predicted", "logits"): [bim],
        Threat("member", 1, "predicted", "logits"): [bim],
    }
    same = dataclasses.replace(column, bim_labels=None)
    followed = columns.threats([same], ATTACKS, 1)
    assert followed == {Threat("member", 0, "true", "logits"): [fgsm, bim]}
