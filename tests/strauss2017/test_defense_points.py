from advens.defenses.settings import DistillationSettings
from advens.strauss2017 import defense_points, rows
from advens.strauss2017.cells import pack_cells, unpack_cells
from advens.strauss2017.defense_points import ADVERSARIAL, DISTILLED, combinations


def test_every_combination_of_answers_is_tried_once():
    tried = [(tuple(rows), tuple(a.values())) for rows, a in combinations("mnist")]
    assert len(tried) == len(set(tried)) == 12 + 2
    adversarial = [answers for rows, answers in tried if rows == ADVERSARIAL]
    assert {eps for eps, _, _ in adversarial} == {0.1, 0.2, 0.3}
    assert (0.2, True, "predicted") in adversarial
    distilled = [answers for rows, answers in tried if rows == DISTILLED]
    assert distilled == [("printed",), ("papernot",)]


def test_answers_change_the_members_that_are_attacked(tmp_path, make_run, monkeypatch):
    seen = []

    def table4(run, names):
        seen.append([rows.recipe(name, run.settings, 0) for name in names])
        return []

    monkeypatch.setattr(defense_points, "table4", table4)
    calls = []
    run = make_run(tmp_path)
    defense_points.measure_points(run, after_combination=calls.append)
    assert len(calls) == len(seen) == 14
    settings = [recipes[1].adversarial for recipes in seen[:12]]
    assert {s.eps for s in settings} == {0.05, 0.1, 0.15}
    assert {(s.box, s.labels) for s in settings} == {
        *((False, "true"), (False, "predicted"), (True, "true"), (True, "predicted"))
    }
    assert seen[-1][0].distillation == DistillationSettings(formula="papernot")


def test_cells_are_those_of_table_4(tmp_path, make_run, monkeypatch):
    only = [(["adv_train"], {"adv_eps": 0.1}), (["adv_train"], {"adv_eps": 0.2})]
    monkeypatch.setattr(defense_points, "combinations", lambda dataset: only)
    run = make_run(tmp_path, num_members=1)
    points = defense_points.measure_points(run, after_combination=lambda points: None)
    assert [point.answers["adv_eps"] for point in points] == [0.1] * 6 + [0.2] * 6
    packed = [point.to_pack for point in points]
    assert len({cell.column for cell in packed}) == 12
    unpacked = unpack_cells(pack_cells(packed, run.dataset.y_test))
    assert [cell.column for cell in unpacked] == [cell.column for cell in packed]
