"""What attacks leave of one network and of an ensemble, as a frame and as bars."""

from collections.abc import Sequence
from typing import Final

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from advens.evaluation.statistics import wilson_interval
from advens.strauss2017.cells import Cell
from advens.strauss2017.reporting.figure_style import PAGE_WIDTH, with_notes

_LEGENDS: Final = {
    "none": "no attack",
    "BIM": "BIM, as in the paper",
    "audit": "audit: the strongest attack",
}


def overview_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return one row per bar: what is judged, the attack, the accuracy.

    Args:
        cells: as of `overview.measure_overview`.
    """
    lines = []
    for cell in cells:
        low, high = wilson_interval(cell.accuracy, cell.correct.shape[1])
        lines.append(
            {
                "dataset": cell.dataset,
                "judged": cell.column,
                "attack": cell.attack,
                "num_images": cell.correct.shape[1],
                "accuracy": cell.accuracy,
                "wilson_low": low,
                "wilson_high": high,
            }
        )
    return pd.DataFrame(lines)


def overview_figure(
    frame: pd.DataFrame, *, title: str, num_members: int, deviations: Sequence[str] = ()
) -> Figure:
    """Draw a group of bars for each of what is judged, one bar per attack.

    Args:
        frame: as of `overview_frame`.
        title: the title.
        num_members: the number of members of the ensemble.
        deviations: see `Run.deviations`.
    """
    names = {"single": "one network", "ensemble": f"ensemble of {num_members}"}
    figure = Figure(figsize=(PAGE_WIDTH, 2.6), layout="constrained")
    ax = figure.subplots()
    sns.barplot(
        frame.assign(judged=frame["judged"].map(names)),
        x="judged",
        y="accuracy",
        hue=frame["attack"].map(_LEGENDS),
        palette="viridis",
        saturation=1,
        errorbar=None,
        edgecolor="black",
        linewidth=0.4,
        ax=ax,
    )
    for bars, (_, of_attack) in zip(
        ax.containers, frame.groupby("attack", sort=False), strict=True
    ):
        ax.bar_label(bars, labels=[f"{a:.3f}" for a in of_attack["accuracy"]])
    ax.set(xlabel="", ylabel="accuracy", ylim=(0, 1.1), yticks=[0, 0.25, 0.5, 0.75, 1])
    ax.tick_params(length=0)
    ax.grid(axis="y")
    ax.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    ax.set_title(with_notes(title, deviations, width=100))
    return figure
