import io

import numpy as np
import pytest
from rich.console import Console

from advens.strauss2017.cells import Cell, DefensePoint
from advens.strauss2017.reporting.points_report import (
    answer_means,
    points_frame,
    terminal_points,
)


def point(row, right, **answers):
    correct = np.arange(100)[None] < right
    return DefensePoint(answers, Cell("mnist", "FGSM", row, "fgsm", correct))


@pytest.fixture
def frame():
    return points_frame(
        [
            point("adv_train", 10, adv_eps=0.1, adv_box=False),
            point("adv_train", 30, adv_eps=0.2, adv_box=False),
            point("adv_train", 50, adv_eps=0.1, adv_box=True),
            point("adv_train", 90, adv_eps=0.2, adv_box=True),
            point("def_dist", 20, distillation="printed"),
            point("def_dist", 40, distillation="papernot"),
        ]
    )


def test_each_answer_is_averaged_over_the_others(frame):
    means = answer_means(frame).set_index("method")
    assert list(means.columns) == [
        *("attack", "column", "paper", "adv_eps=0.1", "adv_eps=0.2"),
        *("adv_box=False", "adv_box=True"),
        *("distillation=printed", "distillation=papernot"),
    ]
    row = means.loc["Adv. Train."]
    assert row["paper"] == 0.3586
    assert list(row[3:7]) == pytest.approx([0.3, 0.6, 0.2, 0.7])
    assert row[7:].isna().all()
    assert list(means.loc["Def. Dist."][7:]) == pytest.approx([0.2, 0.4])


def test_terminal(frame):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(terminal_points(frame, title="A title"))
    text = console.export_text()
    for shown in ("A title", "Adv. Train.", "0.359", "0.600", "papernot"):
        assert shown in text
