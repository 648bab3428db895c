"""The figures, drawn from images and from the frames of the tables alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib import style as matplotlib_style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from advens.datasets import display_name
from advens.strauss2017 import columns
from advens.strauss2017.reporting.figure_style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    SCREEN,
    Style,
)
from advens.strauss2017.reporting.table_bars import LEGEND, draw_bars

if TYPE_CHECKING:
    from advens.strauss2017.examples import Examples

_MARKERS: Final = "os^Dv"
_LABELS: Final = {
    "true": "true labels",
    "predicted": "labels predicted once",
    "repredicted": "labels predicted at every step",
}


def figure1(examples: Sequence[Examples], style: Style = SCREEN) -> Figure:
    """Draw the images of each data set, and below what the attack made of them.

    Below an adversarial image stands the class that is predicted for it. Pixels that
    left [0, 1] are shown clipped. On a screen the classes of a data set stand beside
    each other, in print as many as can be told apart there.
    """
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    width = style.width or PAGE_WIDTH
    shapes = [_shape(of_dataset, style) for of_dataset in examples]
    heights = [1.75] * len(examples)
    if style.in_print:
        # Two lines of square images and one of text per band; a line of title.
        heights = [0.2 + n * (2 * width / (m + 0.5) + 0.2) for n, m in shapes]
    with matplotlib_style.context(style.settings):
        figure = Figure(figsize=(width, sum(heights)), layout=tight)
        parts = figure.subfigures(len(examples), squeeze=False, height_ratios=heights)[
            :, 0
        ]
        for part, of_dataset, shape in zip(parts, examples, shapes, strict=True):
            _draw_examples(part, of_dataset, shape, style)
    return figure


def _shape(examples: Examples, style: Style) -> tuple[int, int]:
    """Return in how many bands the classes stand, and how many in each at most."""
    num_classes = examples.dataset.num_classes
    if not style.in_print:
        return 1, num_classes
    bands = math.ceil(num_classes / (5 if style.narrow else 10))
    return bands, math.ceil(num_classes / bands)


def _draw_examples(
    figure: SubFigure, examples: Examples, shape: tuple[int, int], style: Style
) -> None:
    dataset, attack = examples.dataset, examples.attack
    title = display_name(dataset.name)
    if not style.in_print:
        title += (
            f", {attack.name} on a single classifier "
            f"(ε = {attack.eps:g}, α = {attack.step_size:g}, n = {attack.num_steps})"
        )
    note = "; ".join(examples.shortfalls)
    figure.suptitle(style.with_notes(title, examples.deviations, width=115, note=note))
    bands, per_band = shape
    axes = figure.subplots(2 * bands, per_band, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for ax in axes[::2, 0]:
        ax.set_ylabel("original")
    for ax in axes[1::2, 0]:
        ax.set_ylabel(attack.name)
    for index, x_adv, after in zip(
        examples.indices, examples.x_adv, examples.after, strict=True
    ):
        band, place = divmod(dataset.y_test[index], per_band)
        above, below = axes[2 * band : 2 * band + 2, place]
        for ax, x in ((above, dataset.x_test[index]), (below, x_adv)):
            ax.imshow(np.clip(x, 0, 1), cmap="gray", vmin=0, vmax=1)
        below.set_xlabel(dataset.class_names[after])


def figure2(
    cells: pd.DataFrame,
    deviations: Mapping[str, Sequence[str]],
    style: Style = SCREEN,
) -> Figure:
    """Draw Table 2 as bars: one row of panels per data set, one column per attack.

    On a screen it is as wide as one column of a page. Two data sets that span a page
    of a paper share one row. Whiskers are Wilson's 95 % intervals, open circles the
    paper's numbers, crosses ours under exact gradients.

    Args:
        cells: as of `tables.cell_frame`, of one or more data sets. Methods and columns
            that are missing are left out.
        deviations: for each data set, see `Run.deviations`.
        style: the page that it is drawn for.
    """
    panels = [*itertools.product(cells["dataset"].unique(), ("FGSM", "BIM"))]
    per_row = 4 if style.wide and len(panels) == 4 else 2
    num_rows = len(panels) // per_row
    size = style.width or COLUMN_WIDTH, 0.8 + 1.9 * num_rows
    with matplotlib_style.context(style.settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(num_rows, per_row, sharey=True, squeeze=False)
        for ax, (dataset, attack) in zip(axes.flat, panels, strict=True):
            panel = cells[(cells["dataset"] == dataset) & (cells["attack"] == attack)]
            draw_bars(ax, panel, attack, style)
            title = f"{display_name(dataset)}, {attack}"
            ax.set_title(style.with_notes(title, deviations[dataset], width=26))
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy")
        _draw_legend(figure, num_columns=3 if style.wide else 2, style=style)
    return figure


def _draw_legend(figure: Figure, *, num_columns: int, style: Style) -> None:
    """Draw what is in any panel of Figure 2 below all of them."""
    handles: dict[str, Artist] = {}
    for ax in figure.axes:
        artists, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, artists, strict=True))
    labels = [label for label in LEGEND if label in handles]
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=num_columns,
        frameon=False,
        fontsize=style.small,
        columnspacing=1,
        handlelength=1.5,
    )


def anomaly_figure(
    points: pd.DataFrame, deviations: Sequence[str], style: Style = SCREEN
) -> Figure:
    """Draw accuracy against BIM's steps: one panel per reading of the labels.

    Args:
        points: as of `anomaly_frame`, of one data set and method.
        deviations: see `Run.deviations`.
        style: the page that it is drawn for.
    """
    first = points.iloc[0]
    title = (
        f"{display_name(first['dataset'])}, {first['method']}, BIM "
        f"(ε = {first['eps']:g}, α = {first['step_size']:g})"
    )
    shape = (len(_LABELS), 1) if style.narrow else (1, len(_LABELS))
    size = style.width or PAGE_WIDTH, 5.2 if style.narrow else 2.6
    with matplotlib_style.context(style.settings):
        figure = Figure(figsize=size, layout="constrained")
        if not style.in_print:
            figure.suptitle(style.with_notes(title, deviations, width=115))
        axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        for ax, (labels, heading) in zip(axes.flat, _LABELS.items(), strict=True):
            _draw_steps(ax, points[points["labels"] == labels], style)
            ax.set(title=heading)
        for ax in axes[-1]:
            ax.set(xlabel="n, steps of BIM")
        for ax in axes[:, 0]:
            ax.set(ylabel="accuracy", ylim=(0, 1.03), yticks=np.linspace(0, 1, 6))
        axes[0, 0].set_xticks(points["num_steps"].unique())
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=2 if style.narrow else 4,
            frameon=False,
            fontsize=style.small if style.in_print else None,
        )
    return figure


def _draw_steps(ax: Axes, points: pd.DataFrame, style: Style) -> None:
    """Draw one line per gradient, a dashed one in the box."""
    # In print the lightest is darker, so that it is seen in grey on white, too.
    step = 0.22 if style.in_print else 0.28
    colors, markers, dashes, names = {}, {}, {}, {}
    for i, column in enumerate(columns.ANOMALY):
        for box in (False, True):
            name = f"{column.legend}, box" if box else str(column.legend)
            names[column.name, box] = name
            colors[name] = colormaps["viridis"](step * i)
            markers[name] = _MARKERS[i % len(_MARKERS)]
            dashes[name] = (3.7, 1.6) if box else ""
    keys = zip(points["column"], points["box"], strict=True)
    order = list(names.values())
    sns.lineplot(
        points.assign(line=[names[key] for key in keys]),
        x="num_steps",
        y="accuracy",
        hue="line",
        hue_order=order,
        palette=colors,
        style="line",
        style_order=order,
        markers=markers,
        dashes=dashes,
        estimator=None,
        markersize=3.8,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1,
        legend=False,
        ax=ax,
    )
    for line, name in zip(ax.lines, order, strict=True):
        line.set_label(name)
    ax.set(ylabel="")
    ax.grid(axis="y")
