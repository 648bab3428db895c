"""The strength of Gauss Noise, chosen by the accuracy without attack.

The paper calls its noise small. The noise is read as the standard deviation at which
the accuracy of a single network without attack comes closest to the paper's
(docs/protocol.md, point 8). No attacked image is looked at.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

from advens.evaluation.outcomes import count_lost_classes
from advens.strauss2017.cells import Cell
from advens.strauss2017.run import Run

ROW: Final = "gauss_noise"


def measure_noise(run: Run, noise_stds: Sequence[float]) -> dict[float, Cell]:
    """Train single networks on each noise and judge them without attack.

    Args:
        run: its settings; its `num_members` networks for each noise have the same seeds
            as the first members of Gauss Noise in Table 2.
        noise_stds: standard deviations, >= 0, in units of the [0, 1] range, each once.

    Returns:
        For each the cell that Table 2 calls `no_attack_single`.

    Raises:
        ValueError: if there are none, or one is out of range.
    """
    if not noise_stds:
        raise ValueError("`noise_stds` must be one or more numbers. Received: none")
    groups = {}
    for noise_std in noise_stds:
        settings = dataclasses.replace(run.settings, noise_std=noise_std)
        groups[noise_std] = dataclasses.replace(run, settings=settings).members(ROW)
    run.train(ROW, [member for group in groups.values() for member in group])
    run.lost_classes[ROW] = []
    cells = {}
    for noise_std, group in groups.items():
        correct = run.attack(ROW, group, {None: []})[None]["none"].members
        run.lost_classes[ROW] += count_lost_classes(correct, run.dataset.y_test)
        cells[noise_std] = Cell(
            run.dataset.name, "FGSM", ROW, "no_attack_single", correct
        )
    return cells
