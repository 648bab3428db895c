"""A panel of Figure 2: the bars of Table 2, with intervals and marks."""

from typing import Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from advens.strauss2017 import columns, rows
from advens.strauss2017.reporting.figure_style import Style

# The bars of the paper's Figure 2, and those of other labels, which are hatched:
# attacked first.
BARS: Final = tuple(
    sorted(
        (
            column
            for column in columns.TABLE2
            if column.legend and (column.place is not None or column.alternative)
        ),
        key=lambda column: column.gradient is None,
    )
)
_PAPER: Final = "the paper's value"
_EXACT: Final = "exact gradients"
_WHISKER: Final = "Wilson 95 % interval"
_HALO: Final = withStroke(linewidth=1.2, foreground="white")  # seen on dark bars too
# Clear steps of lightness, for the colour-blind and in grey print, too.
_LIGHTNESS: Final = (0.0, 0.22, 0.52, 0.77, 1.0)
_BARS_WIDTH: Final = 0.84  # of all bars of a method together

# What a legend shows, in this order.
LEGEND: Final = (
    *(str(column.legend) for column in BARS),
    _PAPER,
    _EXACT,
    _WHISKER,
)


def draw_bars(ax: Axes, cells: pd.DataFrame, attack: str, style: Style) -> None:
    """Draw the bars of Table 2, their intervals, the paper's numbers, exact gradients.

    Args:
        ax: where they are drawn.
        cells: as of `tables.cell_frame`, of one data set and one attack. Methods and
            columns that are missing are left out.
        attack: the attack.
        style: the page that it is drawn for.
    """
    labels = [rows.label(row) for row in rows.TABLE2_ROWS]
    methods = [label for label in labels if label in set(cells["method"])]
    drawn = [column for column in BARS if column.name in set(cells["column"])]
    sns.barplot(
        cells,
        x="method",
        y="accuracy",
        hue="column",
        order=methods,
        hue_order=[column.name for column in drawn],
        palette=_bar_colors(),
        saturation=1,
        width=_BARS_WIDTH,
        errorbar=None,
        edgecolor="black",
        linewidth=0.4,
        legend=False,
        ax=ax,
    )
    by_cell = cells.set_index(["column", "method"])
    stand_ins = columns.stand_ins_of("exact_gradients")
    for column, bars in zip(drawn, list(ax.containers), strict=True):
        bars.set_label(column.legend)
        x = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
        if column.alternative:
            for bar in bars:
                bar.set_hatch("//////")
        # A method without this column has no bar.
        of_bars = [methods[position] for position in np.round(x).astype(int)]
        shown = by_cell.loc[column.name].loc[of_bars]
        _draw_whiskers(ax, x, shown["wilson_low"], shown["wilson_high"])
        _draw_circles(ax, x, shown["paper"])
        exact = stand_ins.get((attack, column.name))
        if exact and exact in by_cell.index:
            accuracies = by_cell.loc[exact]["accuracy"].reindex(of_bars)
            _draw_crosses(ax, x, accuracies)
    ax.set_xticks(
        range(len(methods)),
        [name.replace(" ", "\n") for name in methods],
        fontsize=style.small,
    )
    ax.set(xlabel="", ylabel="", ylim=(0, 1.03), yticks=np.linspace(0, 1, 6))
    ax.tick_params(length=0)
    ax.grid(axis="y")


def _bar_colors() -> dict[str, object]:
    """Return the colour of each column's bars; hatched ones are white."""
    filled = [column.name for column in BARS if not column.alternative]
    steps = np.linspace(0, 1, len(filled))
    lightness = np.interp(steps, np.linspace(0, 1, len(_LIGHTNESS)), _LIGHTNESS)
    colors: dict[str, object] = {column.name: "white" for column in BARS}
    colors |= dict(zip(filled, colormaps["viridis"](lightness), strict=True))
    return colors


def _draw_whiskers(ax: Axes, x: np.ndarray, low: pd.Series, high: pd.Series) -> None:
    _, _, (whiskers,) = ax.errorbar(
        x,
        (low + high) / 2,
        yerr=(high - low) / 2,
        fmt="none",
        ecolor="black",
        elinewidth=0.9,
        zorder=4,
        label=_WHISKER,
    )
    whiskers.set_path_effects([_HALO])


def _draw_circles(ax: Axes, x: np.ndarray, y: pd.Series) -> None:
    """Draw the paper's numbers, if there are any."""
    if y.notna().any():
        ax.plot(
            x,
            y,
            label=_PAPER,
            linestyle="none",
            marker="o",
            markersize=3,
            markerfacecolor="none",
            markeredgecolor="black",
            markeredgewidth=0.6,
            path_effects=[_HALO],
            zorder=3,
        )


def _draw_crosses(ax: Axes, x: np.ndarray, y: pd.Series) -> None:
    ax.plot(
        x,
        y,
        label=_EXACT,
        linestyle="none",
        marker="x",
        markersize=2.5,
        color="black",
        markeredgewidth=0.8,
        path_effects=[_HALO],
        zorder=5,
    )
