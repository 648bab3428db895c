import pytest

from advens.attacks.threat import Threat
from advens.strauss2017 import columns, constants
from advens.strauss2017.columns import (
    BY_NAME,
    TABLE2,
    TABLE4,
    Column,
    paper_cells,
    paper_value,
    stand_ins_of,
    threats,
)
from advens.strauss2017.readings import PRINTED, columns_read
from advens.strauss2017.settings import paper_attacks

ATTACKS = paper_attacks("mnist")


def test_names_in_the_order_of_the_files():
    assert [column.name for column in TABLE2] == [
        *("no_attack_single", "no_attack_ensemble"),
        *("grad1_single", "grad1_ensemble", "grad2_ensemble"),
        *("grad2_ensemble_repredicted", "grad2_ensemble_true", "ensemble_gradient"),
        *("grad1_single_exact", "grad1_ensemble_exact", "grad2_ensemble_exact"),
    ]
    assert [column.name for column in TABLE4] == [
        *("no_attack", "fgsm", "bim", "bim_repredicted", "bim_true"),
        *("fgsm_ensemble_gradient", "bim_ensemble_gradient"),
    ]
    assert len(BY_NAME) == len(TABLE2) + len(TABLE4)


def test_the_papers_columns_stand_in_its_order():
    for table, width in ((TABLE2, 5), (TABLE4, 3)):
        places = [column.place for column in table if column.place is not None]
        assert places == list(range(width))


@pytest.mark.parametrize("column", [c for c in BY_NAME.values() if c.alternative_to])
def test_an_alternative_differs_from_its_column_only_in_how_the_paper_is_read(column):
    original = BY_NAME[column.alternative_to]
    assert original.place is not None
    assert column.place is None
    for field in ("judged", "gradient", "attack"):
        assert getattr(column, field) == getattr(original, field)
    changed = {
        field
        for field in ("labels", "loss")
        if getattr(column, field) != getattr(original, field)
    }
    expected = {
        "repredicted_labels": {"labels"},
        # The labels of the paper's columns too, unless a reading has others.
        "true_labels": set(),
        "exact_gradients": {"loss"},
    }
    assert changed == expected[column.alternative]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (Column("a", ""), [None]),
        (
            Column("a", "", gradient="member", loss="exact"),
            [Threat("member", i, loss="exact") for i in range(3)],
        ),
        (
            Column("a", "", gradient="mean_member", labels="repredicted"),
            [Threat("mean_member", labels="repredicted", loss="logits")],
        ),
        (Column("a", "", gradient="ensemble"), [Threat("ensemble", loss="logits")]),
    ],
)
def test_threats_of_a_column(column, expected):
    assert column.threats("BIM", 3) == column.threats("FGSM", 3) == expected


def test_columns_follow_each_gradient_once():
    def member(i, loss="logits"):
        return Threat("member", i, loss=loss)

    grad2 = Threat("mean_member", loss="logits")
    repredicted = Threat("mean_member", labels="repredicted", loss="logits")
    ensemble = Threat("ensemble", loss="logits")
    table2 = columns_read("table2", PRINTED.labels)
    followed = threats(table2, ATTACKS, 2)
    assert list(followed) == [
        *(None, member(0), member(1), grad2, repredicted, ensemble),
        *(member(0, "exact"), member(1, "exact"), Threat("mean_member", loss="exact")),
    ]
    assert followed.pop(None) == []
    assert all(attacks == ATTACKS for attacks in followed.values())
    table4 = columns_read("table4", PRINTED.labels)
    followed = threats(table4, ATTACKS, 2)
    assert list(followed) == [None, grad2, repredicted, ensemble]
    assert all(followed[threat] == ATTACKS for threat in (grad2, repredicted, ensemble))


def test_the_anomaly_follows_each_gradient_of_table_2():
    assert [column.name for column in columns.ANOMALY] == [
        *("grad1_single", "grad1_ensemble", "grad2_ensemble", "ensemble_gradient")
    ]


def test_columns_that_stand_in_for_others():
    assert stand_ins_of("repredicted_labels") == {
        ("BIM", "grad2_ensemble"): "grad2_ensemble_repredicted",
        ("BIM", "bim"): "bim_repredicted",
    }
    assert stand_ins_of("true_labels") == {
        ("BIM", "grad2_ensemble"): "grad2_ensemble_true",
        ("BIM", "bim"): "bim_true",
    }
    assert stand_ins_of("exact_gradients") == {
        (attack, name): f"{name}_exact"
        for attack in ("FGSM", "BIM")
        for name in ("grad1_single", "grad1_ensemble", "grad2_ensemble")
    }


# Read off the paper's tables.
@pytest.mark.parametrize(
    ("dataset", "attack", "row", "column", "value"),
    [
        ("mnist", "FGSM", "rand_ini", "no_attack_single", 0.9912),
        ("mnist", "BIM", "rand_ini", "no_attack_single", 0.9912),
        ("mnist", "BIM", "rand_ini", "grad1_single", 0.0906),
        ("mnist", "BIM", "bagging", "grad1_ensemble", 0.7068),
        ("cifar10", "BIM", "gauss_noise", "grad2_ensemble", 0.7277),
        ("mnist", "none", "bagging+def_dist", "no_attack", 0.9875),
        ("mnist", "FGSM", "bagging+adv_train", "fgsm", 0.8703),
        ("cifar10", "BIM", "def_dist", "bim", 0.3635),
        # The paper has no such data set, attack, row or column.
        ("digits", "BIM", "bagging", "grad2_ensemble", None),
        ("mnist", "BIM 8", "bagging", "grad2_ensemble", None),
        ("mnist", "BIM", "bagging+adv_train", "grad2_ensemble", None),
        ("mnist", "BIM", "mix_mod+adv_train", "bim", None),
        ("mnist", "BIM", "bagging", "ensemble_gradient", None),
        ("mnist", "BIM", "bagging", "grad2_ensemble_repredicted", None),
        ("mnist", "BIM 8", "bagging", "grad2_ensemble_true_box", None),
    ],
)
def test_paper_value(dataset, attack, row, column, value):
    assert paper_value(dataset, attack, row, column) == value


def test_paper_cells():
    assert paper_cells("table2") == {
        ("FGSM", "no_attack_single"),
        ("FGSM", "no_attack_ensemble"),
        *(
            (attack, name)
            for attack in ("FGSM", "BIM")
            for name in ("grad1_single", "grad1_ensemble", "grad2_ensemble")
        ),
    }
    assert paper_cells("table4") == {
        ("none", "no_attack"),
        ("FGSM", "fgsm"),
        ("BIM", "bim"),
    }


def test_the_paper_has_a_number_for_each_of_its_cells():
    for dataset in ("mnist", "cifar10"):
        for attack, row in constants.TABLE2[dataset]:
            for column in TABLE2:
                value = paper_value(dataset, attack, row, column.name)
                assert (value is None) == (column.place is None)
        for row in constants.TABLE4[dataset]:
            for attack, column in paper_cells("table4"):
                assert paper_value(dataset, attack, row, column) is not None
