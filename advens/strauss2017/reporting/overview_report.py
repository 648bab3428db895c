"""What attacks leave of one network and of an ensemble, as a frame and as bars."""

from collections.abc import Sequence
from typing import Final

import pandas as pd
import seaborn as sns
from matplotlib import style as matplotlib_style
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from advens.datasets import display_name
from advens.evaluation.statistics import wilson_interval
from advens.strauss2017.cells import Cell
from advens.strauss2017.reporting.figure_style import PAGE_WIDTH, SCREEN, Style
from advens.strauss2017.reporting.results import StoredTable

_LEGENDS: Final = {
    "none": "no attack",
    "BIM": "BIM, as in the paper",
    "audit": "audit: each image's strongest attack",
}
_COLORS: Final = ("#dddddd", "#4f9da6", "#1d2f5f")  # also in grey: light to dark


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


def overview_figure(stored: StoredTable, style: Style = SCREEN) -> Figure:
    """Draw a group of bars for each of what is judged, one bar per attack.

    Args:
        stored: a frame as of `overview_frame`, and its manifest.
        style: how it looks.
    """
    frame, record = stored.cells, stored.record
    num_members = len(record["seeds"]["members"])
    names = {"single": "one network", "ensemble": f"an ensemble of {num_members}"}
    with matplotlib_style.context(style.settings):
        size = (style.width or PAGE_WIDTH, 2.2 if style.narrow else 2.6)
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.subplots()
        sns.barplot(
            frame.assign(judged=frame["judged"].map(names)),
            x="judged",
            y="accuracy",
            hue=frame["attack"].map(_LEGENDS),
            palette=_COLORS,
            saturation=1,
            errorbar=None,
            edgecolor="black",
            linewidth=0.4,
            ax=ax,
        )
        for bars in ax.containers:
            if isinstance(bars, BarContainer):
                ax.bar_label(bars, fmt="%.3f")
        ax.set(xlabel="", ylim=(0, 1.12), yticks=[0, 0.25, 0.5, 0.75, 1])
        ax.tick_params(length=0)
        ax.grid(axis="y")
        sns.move_legend(
            ax, "lower center", bbox_to_anchor=(0.5, 1), ncols=3, title=None
        )
        if not style.in_print:
            title = f"{display_name(frame['dataset'].iloc[0])}, Rand. Ini."
            figure.suptitle(
                style.with_notes(title, record["differs_from_the_paper"], width=100)
            )
    return figure
