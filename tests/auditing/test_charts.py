import pytest

from advens.auditing.charts import (
    Series,
    heat_map,
    line_chart,
    percent,
    reliability_chart,
)


def known(value, half=None):
    if half is None:
        return {"value": value}
    return {"value": value, "low": value - half, "high": value + half}


# The plot reaches from 46 to 346 and, for accuracies 0 and 1, from 200 to 12.
def test_coordinates_worked_out_by_hand():
    points = [(0.0, known(1.0)), (0.1, known(0.5, 0.25)), (0.4, known(0.25, 0.25))]
    chart = line_chart("title", "eps", [Series("PGD", "main", points)], marker=0.2)
    assert chart.lines[0].path == "46.0,12.0 121.0,106.0 346.0,153.0"
    # There along the lower bounds, and back along the upper ones.
    band = "121.0,153.0 346.0,200.0 346.0,106.0 121.0,59.0"
    assert chart.lines[0].band == band
    assert (
        chart.lines[0].points[1].text
        == "PGD, eps 0.1: 50.0\xa0% (25.0\xa0% to 75.0\xa0%)"
    )
    assert chart.marker == pytest.approx(196)
    assert [tick.label for tick in chart.x_ticks] == ["0", "0.1", "0.2", "0.3", "0.4"]
    assert [tick.at for tick in chart.y_ticks] == [200, 153, 106, 59, 12]


def test_logarithmic_axis():
    points = [(steps, known(0.5)) for steps in (0, 1, 3)]
    chart = line_chart("title", "steps", [Series("PGD", "main", points)], log=True)
    # log(1 + x) is 0, log 2 and 2 log 2.
    assert chart.lines[0].path == "46.0,106.0 196.0,106.0 346.0,106.0"
    assert [tick.label for tick in chart.x_ticks] == ["0", "1", "3"]


def test_unknown_points_are_left_out():
    points = [(0, known(1.0)), (1, None), (2, known(None)), (3, known(0.5))]
    nothing = Series("nothing", "noise", [(0, None)])
    chart = line_chart("title", "x", [nothing, Series("a", "main", points)])
    assert [line.name for line in chart.lines] == ["a"]
    assert len(chart.lines[0].points) == 2
    assert chart.lines[0].band == ""


@pytest.mark.parametrize("points", [[], [(1, known(0.5))], [(1, None), (2, None)]])
def test_nothing_to_draw(points):
    assert line_chart("title", "x", [Series("a", "main", points)]) is None


def test_marker_beyond_the_numbers_is_on_the_axis():
    points = [(0.1, known(1.0)), (0.2, known(0.5))]
    for marker, at in ((0.05, 46), (0.4, 346)):
        series = [Series("a", "main", points)]
        assert line_chart("title", "x", series, marker=marker).marker == at


def test_labels_do_not_touch():
    points = [(steps, known(0.5)) for steps in range(1, 101)]
    chart = line_chart("title", "steps", [Series("PGD", "main", points)], log=True)
    at = [tick.at for tick in chart.x_ticks]
    assert min(b - a for a, b in zip(at, at[1:], strict=False)) >= 26


def test_reliability():
    bins = [
        {"low": 0.5, "high": 0.6, "count": 1, "confidence": 0.5, "accuracy": 0.25},
        {"low": 0.6, "high": 0.7, "count": 0, "confidence": None, "accuracy": None},
        {"low": 0.9, "high": 1.0, "count": 4, "confidence": 1.0, "accuracy": 1.0},
    ]
    ideal, measured = reliability_chart("title", "main", bins).lines
    assert ideal.path == "46.0,200.0 346.0,12.0"
    assert measured.path == "196.0,153.0 346.0,12.0"
    assert [point.radius for point in measured.points] == [5, 8]
    assert len(reliability_chart("title", "main", []).lines) == 1


def test_heat_map():
    shares = heat_map("title", ["1", "all"], [[0.051, 1.0]], percentages=True)
    assert shares.rows == [[("5", 5), ("100", 100)]]
    signs = heat_map("title", ["1", "2"], [[1.0, 0.75], [None, 0.4]], blank=0.5)
    assert signs.rows == [[("1.00", 100), ("0.75", 50)], [("–", 0), ("0.40", 0)]]


def test_percent():
    assert [percent(0.1234), percent(1, 0), percent(None)] == [
        "12.3\xa0%",
        "100\xa0%",
        "–",
    ]
