"""The atlas of readings as a figure and on the terminal."""

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib import style as matplotlib_style
from matplotlib.figure import Figure
from rich.table import Table

from advens import datasets
from advens.strauss2017 import atlas_choice, columns
from advens.strauss2017.atlas_choice import Judged, reading_name, row_name
from advens.strauss2017.readings import LABELS
from advens.strauss2017.reporting.figure_style import PAGE_WIDTH, SCREEN, Style


def terminal_atlas(readings: Sequence[Judged], *, title: str) -> Table:
    """Return the distances of the readings for the terminal.

    Args:
        readings: as of `atlas_choice.distances`.
        title: the title of the table.
    """
    table = Table(title=title)
    shown = ("num_members", "seed", "distance", *LABELS, "restarts")
    for name in ("reading", *shown):
        table.add_column(name.replace("_", " "))
    for reading in readings:
        values = {**reading, "distance": f"{reading['distance']:.4f}"}
        table.add_row(reading_name(reading), *(str(values[name]) for name in shown))
    return table


def verdict(readings: Sequence[Judged]) -> str:
    """Return which reading wins, with its labels, as a sentence.

    Args:
        readings: as of `atlas_choice.distances`.
    """
    chosen = atlas_choice.winner(readings)
    if chosen is None:
        return "The rule chooses no reading before its second draw is complete."
    labels = ", ".join(f"{name} {chosen[name]}" for name in LABELS)
    return (
        f"By the rule the reading {reading_name(chosen)} wins, with a distance of "
        f"{chosen['distance']:.4f} in the second draw and the labels {labels}."
    )


def atlas_figure(
    atlas: pd.DataFrame, readings: Sequence[Judged], style: Style = SCREEN
) -> Figure:
    """Draw the differences from the paper: one row per reading, one column per cell.

    In one column of a paper the rows are numbered, and the caption names them.

    Args:
        atlas: as of `atlas_choice.atlas_frame`, of one data set.
        readings: as of `atlas_choice.distances`: the rows, from top to bottom, and the
            labels with which each cell is shown.
        style: the page that it is drawn for.
    """
    lines = {row_name(reading): _differences(atlas, reading) for reading in readings}
    frame = pd.DataFrame(lines).T
    if style.narrow:
        frame = frame.set_axis(range(1, len(frame) + 1))
    size = style.width or PAGE_WIDTH, 1.2 + 0.16 * len(frame)
    with matplotlib_style.context(style.settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        # In print grey, the darker the farther from the paper: red and blue would be
        # the same.
        sns.heatmap(
            frame.abs() if style.in_print else frame,
            ax=axes,
            vmin=0 if style.in_print else -0.5,
            vmax=1 if style.in_print else 0.5,
            cmap="Greys" if style.in_print else "RdBu_r",
            annot=frame,
            fmt="+.2f",
            annot_kws={"fontsize": style.small if style.in_print else 5},
            cbar=False,
        )
        dataset = datasets.display_name(str(atlas["dataset"].iloc[0]))
        if not style.in_print:
            axes.set_title(
                f"{dataset}, Rand. Ini.: accuracy, ours minus the paper's; the nearest "
                "first"
            )
        axes.set_xticklabels(
            [name.replace(" ", "\n").replace(".\n", ". ") for name in frame.columns],
            rotation=90 if style.narrow else 0,
            fontsize=style.small,
        )
        axes.set_yticklabels(axes.get_yticklabels(), fontsize=style.small, rotation=0)
        axes.tick_params(length=0)
    return figure


def _differences(atlas: pd.DataFrame, reading: Judged) -> dict[str, float]:
    """Return a reading's differences from the paper, with its chosen labels."""
    chosen = atlas[atlas["loss"] == columns.PAPER_LOSS]
    for name in atlas_choice.DRAW:
        same = (
            chosen[name].isna()
            if reading[name] is None
            else chosen[name] == reading[name]
        )
        chosen = chosen[same]
    differences = {}
    for column in columns.TABLE2:
        if column.place is None:
            continue
        cells = chosen[chosen["column"] == column.name]
        if column.gradient is None:
            differences[f"{column.legend}"] = float(cells["difference"].iloc[0])
            continue
        gradient = column.name.split("_")[0]
        for attack in ("FGSM", "BIM"):
            labels = reading[f"{attack.lower()}_{gradient}"]
            cell = cells[(cells["attack"] == attack) & (cells["labels"] == labels)]
            difference = float(cell["difference"].iloc[0])
            differences[f"{attack} {column.legend}"] = difference
    return differences
