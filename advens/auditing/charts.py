"""Charts as geometry, which the report's templates draw as SVG and as tables.

A plotting library's SVG has colours of its own and text as outlines. The page's charts
take their colours from its style sheet, so that they can be dark and can be printed;
their text can be read out; and they need 3 kB each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from matplotlib.ticker import MaxNLocator

# An accuracy with its interval, as in audit.json: "value", "low", "high".
Accuracy: TypeAlias = Mapping[str, Any]

# In units of the SVG's view box; about pixels.
WIDTH: Final = 360
HEIGHT: Final = 240
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 40
_RADIUS: Final = 3.0
# Labels that are closer to each other would touch.
_LABEL_DISTANCE: Final = 26.0
# Of a matrix, in pixels.
_HEAD_WIDTH: Final = 24
_CELL_WIDTH: Final = 27


@dataclass(frozen=True)
class Tick:
    """A label on an axis and where it is."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A mark, its radius, and the numbers that it stands for."""

    x: float
    y: float
    radius: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line through its points.

    `style` is a class of the style sheet. `path` and `band` are coordinates as SVG has
    them; the band is between the lower and the upper bounds, empty if there are none.
    """

    name: str
    style: str
    points: list[Point]
    path: str
    band: str


@dataclass(frozen=True)
class Chart:
    """A chart whose vertical axis is an accuracy from 0 to 1.

    `marker` is where a vertical line stands, if anywhere.
    """

    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    marker: float | None


@dataclass(frozen=True)
class Series:
    """What a line shows: accuracies over numbers.

    Args:
        name: what the legend says.
        style: a class of the style sheet: "main", "second", "noise" or "ideal".
        points: pairs of a number and an accuracy, which may be None if unknown.
        radii: of the marks; all alike if None.
    """

    name: str
    style: str
    points: Sequence[tuple[float, Accuracy | None]]
    radii: Sequence[float] | None = None


@dataclass(frozen=True)
class HeatMap:
    """A matrix with numbers. A cell is its text and the strength of its colour, in %.

    `min_width` is what its numbers need, in pixels.
    """

    title: str
    columns: list[str]
    rows: list[list[tuple[str, int]]]
    min_width: int


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage that no line break splits, a dash if unknown."""
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def line_chart(
    title: str,
    x_label: str,
    series: Sequence[Series],
    *,
    log: bool = False,
    marker: float | None = None,
) -> Chart | None:
    """Return a chart of accuracies over numbers, None if fewer than two are known.

    Args:
        title: what it shows, in a few words.
        x_label: what the horizontal axis shows.
        series: its lines.
        log: whether the horizontal axis is logarithmic (of 1 + x, as 0 steps are
            allowed), with a tick at each number.
        marker: the number at which a vertical line stands.
    """
    numbers = sorted({number for line in series for number, *_ in _known(line)})
    if len(numbers) < 2:
        return None
    scale = math.log1p if log else float
    marked = numbers if marker is None else [*numbers, marker]
    first, last = min(marked), max(marked)

    def place(x: float) -> float:
        share = (scale(x) - scale(first)) / (scale(last) - scale(first))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    whole = all(x == int(x) for x in numbers)
    nice = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole)
    values = numbers if log else nice.tick_values(first, last)
    ticks = [Tick(place(x), f"{x:g}") for x in values if first <= x <= last]
    return Chart(
        title=title,
        x_label=x_label,
        x_ticks=_apart(ticks),
        y_ticks=[Tick(_height(i / 4), percent(i / 4, 0)) for i in range(5)],
        lines=[_line(line, place, x_label) for line in series if _known(line)],
        marker=None if marker is None else place(marker),
    )


def reliability_chart(
    title: str, style: str, bins: Sequence[Mapping[str, Any]]
) -> Chart:
    """Return a reliability diagram: the accuracy at each confidence.

    Guo et al. 2017, arXiv:1706.04599, Figure 1. The area of a mark grows with the
    number of images in its bin.

    Args:
        title: what it shows.
        style: of the line.
        bins: of the calibration, as in audit.json.
    """
    bins = [bin for bin in bins if bin["count"] and bin["confidence"] is not None]
    most = max((bin["count"] for bin in bins), default=1)
    measured = Series(
        "measured",
        style,
        [(bin["confidence"], {"value": bin["accuracy"]}) for bin in bins],
        [2 + 6 * math.sqrt(bin["count"] / most) for bin in bins],
    )
    corners = [(float(i), {"value": float(i)}) for i in (0, 1)]
    ideal = Series("calibrated", "ideal", corners, [0, 0])
    chart = line_chart(title, "confidence", [ideal, measured])
    assert chart, "the ideal line is always there"
    return chart


def heat_map(
    title: str,
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    percentages: bool = False,
    blank: float = 0.0,
) -> HeatMap:
    """Return a matrix with numbers.

    Args:
        title: what it shows.
        columns: the heads of its columns.
        values: its rows of numbers, at most 1.
        percentages: whether the numbers are written as percentages, without the sign.
        blank: the value up to which a cell has no colour; at 1 it has the full one.
    """

    def cell(value: float | None) -> tuple[str, int]:
        if value is None:
            return "–", 0
        text = f"{100 * value:.0f}" if percentages else f"{value:.2f}"
        return text, max(0, round(100 * (value - blank) / (1 - blank)))

    rows = [[cell(value) for value in row] for row in values]
    return HeatMap(title, list(columns), rows, _HEAD_WIDTH + _CELL_WIDTH * len(columns))


def _known(series: Series) -> list[tuple[float, Accuracy, float]]:
    """Return the numbers, accuracies and radii of those points that are known."""
    radii = series.radii or [_RADIUS] * len(series.points)
    return [
        (number, accuracy, radius)
        for (number, accuracy), radius in zip(series.points, radii, strict=True)
        if accuracy and accuracy["value"] is not None
    ]


def _line(series: Series, place: Callable[[float], float], x_label: str) -> Line:
    points, low, high = [], [], []
    for number, accuracy, radius in _known(series):
        x, y = place(number), _height(accuracy["value"])
        text = f"{series.name}, {x_label} {number:g}: {percent(accuracy['value'])}"
        if accuracy.get("low") is not None:
            text += f" ({percent(accuracy['low'])} to {percent(accuracy['high'])})"
            low.append((x, _height(accuracy["low"])))
            high.append((x, _height(accuracy["high"])))
        points.append(Point(x, y, radius, text))
    path = _coordinates([(point.x, point.y) for point in points])
    return Line(series.name, series.style, points, path, _coordinates(low + high[::-1]))


def _height(accuracy: float) -> float:
    return HEIGHT - BOTTOM - accuracy * (HEIGHT - TOP - BOTTOM)


def _coordinates(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _apart(ticks: Sequence[Tick]) -> list[Tick]:
    """Return the ticks without those whose labels would touch the one before."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or tick.at - kept[-1].at >= _LABEL_DISTANCE:
            kept.append(tick)
    return kept
