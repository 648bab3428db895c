"""The figures, drawn from images and from the frames of the tables alone."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from advens import paper
from advens.files import atomic
from advens.tables import EXACT

if TYPE_CHECKING:
    from advens.examples import Examples

# As the paper's Figure 2 names them; the hatched one is not in the paper.
SERIES: Final = {
    "grad1_single": "Grad. 1 Single",
    "grad1_ensemble": "Grad. 1 Ensemble",
    "grad2_ensemble": "Grad. 2 Ensemble",
    "grad2_ensemble_repredicted": "Grad. 2 Ensemble, labels re-predicted",
    "no_attack_single": "No Attack Single",
    "no_attack_ensemble": "No Attack Ensemble",
}
_PAPER: Final = "the paper's value"
_EXACT: Final = "exact gradients"
_PAPER_MARK: Final[dict[str, Any]] = {
    **{"label": _PAPER, "marker": "o", "markersize": 3, "linestyle": "none"},
    **{"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 0.6},
    "zorder": 3,
}
_EXACT_MARK: Final[dict[str, Any]] = {
    **{"label": _EXACT, "marker": "x", "markersize": 2.5, "linestyle": "none"},
    **{"color": "black", "markeredgewidth": 0.8, "zorder": 5},
}
_WHISKER: Final = "Wilson 95 % interval"
_HALO: Final = withStroke(linewidth=1.2, foreground="white")  # seen on dark bars too
_HATCHED: Final = "grad2_ensemble_repredicted"
# Clear steps of lightness, to the colour-blind and in grey print too.
_COLORS: Final = dict(
    zip(
        (column for column in SERIES if column != _HATCHED),
        colormaps["viridis"]([0.0, 0.22, 0.52, 0.77, 1.0]),
        strict=True,
    )
)

# Of the anomaly.
_MARKERS: Final = dict(zip(SERIES, "os^", strict=False)) | {"ensemble_gradient": "D"}
_LABELS: Final = {
    "true": "true labels",
    "predicted": "labels predicted once",
    "repredicted": "labels predicted at every step",
}

_NAMES: Final = {"digits": "Digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}
# Inches: both columns of a page, and one.
_WIDTH: Final = 7.0
_COLUMN_WIDTH: Final = 3.5
_SMALL: Final = 6  # points: the least that is legible
_STYLE: Final[dict[str, Any]] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "figure.titlesize": 7,
    "axes.linewidth": 0.5,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType, which journals ask for, instead of Type 3
}


@style.context(_STYLE)
def figure1(examples: Sequence[Examples]) -> Figure:
    """Draw two rows a data set: its images and, beneath, what the attack made of them.

    Beneath an attacked image stands the class that is predicted for it. Pixels that
    left [0, 1] are shown clipped.
    """
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    figure = Figure(figsize=(_WIDTH, 1.75 * len(examples)), layout=tight)
    parts = figure.subfigures(len(examples), squeeze=False)[:, 0]
    for part, example in zip(parts, examples, strict=True):
        _draw_examples(part, example)
    return figure


def _draw_examples(figure: SubFigure, examples: Examples) -> None:
    dataset, attack = examples.dataset, examples.attack
    title = (
        f"{_NAMES[dataset.name]}, {attack.name} on a single classifier "
        f"(ε = {attack.eps:g}, α = {attack.step_size:g}, n = {attack.num_steps})"
    )
    notes = ["; ".join(examples.shortfalls)]
    figure.suptitle(_titled(title, examples.deviations, *notes, width=115))
    axes = figure.subplots(2, dataset.num_classes, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    axes[0, 0].set_ylabel("original")
    axes[1, 0].set_ylabel(attack.name)
    for index, x_adv, after in zip(
        examples.indices, examples.x_adv, examples.after, strict=True
    ):
        column = axes[:, dataset.y_test[index]]
        for ax, x in zip(column, (dataset.x_test[index], x_adv), strict=True):
            ax.imshow(np.clip(x, 0, 1), cmap="gray", vmin=0, vmax=1)
        column[1].set_xlabel(dataset.class_names[after])


@style.context(_STYLE)
def figure2(cells: pd.DataFrame, deviations: Mapping[str, Sequence[str]]) -> Figure:
    """Draw Table 2 as bars: a row of panels a data set, a column an attack.

    It is as wide as one column of a page. Whiskers are Wilson's 95 % intervals, open
    circles the paper's values, crosses ours under exact gradients.

    Args:
        cells: as of `tables.tidy`, of one or more data sets. Methods and columns that
            are missing are left out.
        deviations: of each data set, see `experiments.Run.deviations`.
    """
    datasets, attacks = cells["dataset"].unique(), ("FGSM", "BIM")
    size = _COLUMN_WIDTH, 0.8 + 1.9 * len(datasets)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(datasets), len(attacks), sharey=True, squeeze=False)
    for row, dataset in zip(axes, datasets, strict=True):
        for ax, attack in zip(row, attacks, strict=True):
            panel = cells[(cells["dataset"] == dataset) & (cells["attack"] == attack)]
            _draw_bars(ax, panel)
            title = f"{_NAMES[dataset]}, {attack}"
            ax.set_title(_titled(title, deviations[dataset], width=26))
        row[0].set_ylabel("accuracy")
    found = [ax.get_legend_handles_labels() for ax in axes.flat]
    handles = {k: v for part in found for v, k in zip(*part, strict=True)}
    legend = {
        k: handles[k]
        for k in (*SERIES.values(), _PAPER, _EXACT, _WHISKER)
        if k in handles
    }
    figure.legend(
        legend.values(),
        legend,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=_SMALL,
        columnspacing=1,
        handlelength=1.5,
    )
    return figure


def _draw_bars(ax: Axes, cells: pd.DataFrame) -> None:
    methods = [name for name in paper.METHODS.values() if name in set(cells["method"])]
    columns = [column for column in SERIES if column in set(cells["column"])]
    width = 0.84 / len(columns)
    for i, column in enumerate(columns):
        series = cells[cells["column"] == column].set_index("method").reindex(methods)
        x = np.arange(len(methods)) + (i - (len(columns) - 1) / 2) * width
        hatched = column == _HATCHED
        ax.bar(
            x,
            series["accuracy"],
            width,
            color="white" if hatched else _COLORS[column],
            hatch="//////" if hatched else None,
            edgecolor="black",
            linewidth=0.4,
            label=SERIES[column],
        )
        low, high = series["wilson_low"], series["wilson_high"]
        _, _, whiskers = ax.errorbar(
            x,
            (low + high) / 2,
            yerr=(high - low) / 2,
            fmt="none",
            ecolor="black",
            elinewidth=0.9,
            zorder=4,
            label=_WHISKER,
        )
        whiskers[0].set_path_effects([_HALO])
        exact = cells[cells["column"] == EXACT.get(column)].set_index("method")
        for values, mark in (
            (series["paper"], _PAPER_MARK),
            (exact["accuracy"].reindex(methods), _EXACT_MARK),
        ):
            if values.notna().any():
                ax.plot(x, values, path_effects=[_HALO], **mark)
    labels = [name.replace(" ", "\n") for name in methods]
    ax.set_xticks(range(len(methods)), labels, fontsize=_SMALL)
    ax.set(ylim=(0, 1.03), yticks=np.linspace(0, 1, 6))
    ax.tick_params(length=0)
    ax.grid(axis="y")


@style.context(_STYLE)
def anomaly(points: pd.DataFrame, deviations: Sequence[str]) -> Figure:
    """Draw accuracy against BIM's steps: a panel a reading of the labels.

    Args:
        points: as of `anomaly.tidy`, of one data set and method.
        deviations: see `experiments.Run.deviations`.
    """
    figure = Figure(figsize=(_WIDTH, 2.6), layout="constrained")
    dataset, method, *budget = points[["dataset", "method", "eps", "step_size"]].iloc[0]
    title = "{}, {}, BIM (ε = {:g}, α = {:g})".format(_NAMES[dataset], method, *budget)
    figure.suptitle(_titled(title, deviations, width=115))
    axes = figure.subplots(1, len(_LABELS), sharex=True, sharey=True)
    for ax, (labels, heading) in zip(axes, _LABELS.items(), strict=True):
        panel = points[points["labels"] == labels].set_index(["column", "box"])
        for i, (column, marker) in enumerate(_MARKERS.items()):
            for box, suffix in ((False, ""), (True, ", box")):
                ax.plot(
                    *panel.loc[(column, box), ["num_steps", "accuracy"]].to_numpy().T,
                    marker + ("--" if box else "-"),
                    color=colormaps["viridis"](0.28 * i),
                    markersize=3,
                    linewidth=1,
                    label=SERIES.get(column, "Ensemble Gradient") + suffix,
                )
        ax.set(title=heading, xlabel="n, steps of BIM")
        ax.grid(axis="y")
    axes[0].set(ylabel="accuracy", ylim=(0, 1.03), yticks=np.linspace(0, 1, 6))
    axes[0].set_xticks(points["num_steps"].unique())
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _titled(title: str, deviations: Sequence[str], *notes: str, width: int) -> str:
    if deviations:
        notes = (f"differs from the paper: {', '.join(deviations)}", *notes)
    return "\n".join(
        [title, *(line for n in notes for line in textwrap.wrap(n, width))]
    )


def save(figure: Figure, *, out_dir: Path, name: str) -> list[Path]:
    """Write `<name>.png` (300 dpi) and `<name>.pdf`, each whole or not at all.

    The same figure gives the same bytes.

    Returns:
        Their paths.
    """
    paths = []
    for suffix, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        paths.append(out_dir / f"{name}.{suffix}")
        with style.context(_STYLE), atomic(paths[-1]) as handle:
            figure.savefig(handle, format=suffix, dpi=300, metadata=metadata)
    return paths
