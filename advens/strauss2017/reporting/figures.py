"""The figures, drawn from images and from the frames of the tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps, style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from advens.datasets import display_name
from advens.strauss2017 import columns
from advens.strauss2017.reporting.figure_style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    SMALL,
    STYLE,
    with_notes,
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


@style.context(dict(STYLE))
def figure1(examples: Sequence[Examples]) -> Figure:
    """Draw two rows per data set: images, and below what the attack made of them.

    Below an adversarial image stands the class that is predicted for it. Pixels that
    left [0, 1] are shown clipped.
    """
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    figure = Figure(figsize=(PAGE_WIDTH, 1.75 * len(examples)), layout=tight)
    parts = figure.subfigures(len(examples), squeeze=False)[:, 0]
    for part, of_dataset in zip(parts, examples, strict=True):
        _draw_examples(part, of_dataset)
    return figure


def _draw_examples(figure: SubFigure, examples: Examples) -> None:
    dataset, attack = examples.dataset, examples.attack
    title = (
        f"{display_name(dataset.name)}, {attack.name} on a single classifier "
        f"(ε = {attack.eps:g}, α = {attack.step_size:g}, n = {attack.num_steps})"
    )
    note = "; ".join(examples.shortfalls)
    figure.suptitle(with_notes(title, examples.deviations, width=115, note=note))
    axes = figure.subplots(2, dataset.num_classes, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    axes[0, 0].set_ylabel("original")
    axes[1, 0].set_ylabel(attack.name)
    for index, x_adv, after in zip(
        examples.indices, examples.x_adv, examples.after, strict=True
    ):
        above, below = axes[:, dataset.y_test[index]]
        for ax, x in ((above, dataset.x_test[index]), (below, x_adv)):
            ax.imshow(np.clip(x, 0, 1), cmap="gray", vmin=0, vmax=1)
        below.set_xlabel(dataset.class_names[after])


@style.context(dict(STYLE))
def figure2(cells: pd.DataFrame, deviations: Mapping[str, Sequence[str]]) -> Figure:
    """Draw Table 2 as bars: one row of panels per data set, one column per attack.

    It is as wide as one column of a page. Whiskers are Wilson's 95 % intervals, open
    circles the paper's numbers, crosses ours under exact gradients.

    Args:
        cells: as of `tables.cell_frame`, of one or more data sets. Methods and columns
            that are missing are left out.
        deviations: for each data set, see `Run.deviations`.
    """
    datasets, attacks = cells["dataset"].unique(), ("FGSM", "BIM")
    size = COLUMN_WIDTH, 0.8 + 1.9 * len(datasets)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(datasets), len(attacks), sharey=True, squeeze=False)
    handles: dict[str, Artist] = {}
    for line, dataset in zip(axes, datasets, strict=True):
        for ax, attack in zip(line, attacks, strict=True):
            panel = cells[(cells["dataset"] == dataset) & (cells["attack"] == attack)]
            draw_bars(ax, panel, attack)
            title = f"{display_name(dataset)}, {attack}"
            ax.set_title(with_notes(title, deviations[dataset], width=26))
            artists, labels = ax.get_legend_handles_labels()
            handles |= dict(zip(labels, artists, strict=True))
        line[0].set_ylabel("accuracy")
    labels = [label for label in LEGEND if label in handles]
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=SMALL,
        columnspacing=1,
        handlelength=1.5,
    )
    return figure


@style.context(dict(STYLE))
def anomaly_figure(points: pd.DataFrame, deviations: Sequence[str]) -> Figure:
    """Draw accuracy against BIM's steps: one panel per reading of the labels.

    Args:
        points: as of `anomaly_frame`, of one data set and method.
        deviations: see `Run.deviations`.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 2.6), layout="constrained")
    first = points.iloc[0]
    title = (
        f"{display_name(first['dataset'])}, {first['method']}, BIM "
        f"(ε = {first['eps']:g}, α = {first['step_size']:g})"
    )
    figure.suptitle(with_notes(title, deviations, width=115))
    axes = figure.subplots(1, len(_LABELS), sharex=True, sharey=True)
    for ax, (labels, heading) in zip(axes, _LABELS.items(), strict=True):
        _draw_steps(ax, points[points["labels"] == labels])
        ax.set(title=heading, xlabel="n, steps of BIM")
    axes[0].set(ylabel="accuracy", ylim=(0, 1.03), yticks=np.linspace(0, 1, 6))
    axes[0].set_xticks(points["num_steps"].unique())
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_steps(ax: Axes, points: pd.DataFrame) -> None:
    """Draw one line per gradient, a dashed one in the box."""
    colors, markers, dashes, names = {}, {}, {}, {}
    for i, column in enumerate(columns.ANOMALY):
        for box in (False, True):
            name = f"{column.legend}, box" if box else str(column.legend)
            names[column.name, box] = name
            colors[name] = colormaps["viridis"](0.28 * i)
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
