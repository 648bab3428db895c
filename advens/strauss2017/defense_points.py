"""Table 4's open points: which answer moves which cell.

Adversarial training and distillation leave points open that Table 2 does not touch
(docs/protocol.md, points 19 to 21). Each combination of answers is trained and attacked
here; nothing is chosen on the result.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, get_args

from advens.defenses.settings import DistillationFormula, PerturbationLabels
from advens.strauss2017.cells import DefensePoint
from advens.strauss2017.experiments import table4
from advens.strauss2017.run import Run
from advens.strauss2017.settings import Settings

# Single networks and an ensemble with each defence.
ADVERSARIAL: Final = ("adv_train", "bagging+adv_train")
DISTILLED: Final = ("def_dist", "bagging+def_dist")

NUM_MEMBERS: Final = 3


def combinations(dataset: str) -> Iterator[tuple[Sequence[str], Mapping[str, object]]]:
    """Yield rows of Table 4 with each combination of answers that matters to them.

    The eps of adversarial training is one, two or three thirds of FGSM's.
    """
    fgsm_eps = Settings.for_dataset(dataset).adv_eps
    adversarial: dict[str, Sequence[object]] = {
        "adv_eps": [round(fgsm_eps * n / 3, 6) for n in (1, 2, 3)],
        "adv_box": [False, True],
        "adv_labels": get_args(PerturbationLabels),
    }
    distilled: dict[str, Sequence[object]] = {
        "distillation": get_args(DistillationFormula)
    }
    for rows, points in ((ADVERSARIAL, adversarial), (DISTILLED, distilled)):
        for values in itertools.product(*points.values()):
            yield rows, dict(zip(points, values, strict=True))


def measure_points(
    run: Run, *, after_combination: Callable[[list[DefensePoint]], None]
) -> list[DefensePoint]:
    """Train and attack Table 4's defences under each combination of answers.

    Args:
        run: its settings.
        after_combination: called with all cells so far, whenever a combination is done.
    """
    points: list[DefensePoint] = []
    for rows, answers in combinations(run.settings.dataset):
        settings = dataclasses.replace(run.settings, **answers)  # type: ignore[arg-type]
        cells = table4(dataclasses.replace(run, settings=settings), rows)
        points += [DefensePoint(answers, cell) for cell in cells]
        after_combination(points)
    return points
