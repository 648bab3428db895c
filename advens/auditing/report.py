"""An audit as one page: self-contained HTML without any network.

The template `report.html` and its parts hold the words and the order; here are the
numbers that they show and charts have.
"""

import base64
import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from advens.arrays import Floats, Images
from advens.auditing.charts import (
    Chart,
    HeatMap,
    Series,
    heat_map,
    line_chart,
    percent,
    reliability_chart,
)
from advens.auditing.gallery import FATES, are_pictures, gallery

# So many rows fit on a page; the weakest are shown of more.
MAX_CLASSES: Final = 20
MAX_MATRIX: Final = 24
# What settings are called on the page.
WORDS: Final = {
    "linf": "L∞",
    "l2": "L2",
    "mean_probability": "mean of the probabilities",
    "mean_logit": "mean of the logits",
    "majority": "majority",
}


def render(
    document: Mapping[str, Any],
    outcomes: Mapping[str, np.ndarray],
    x: Images,
    *,
    other: Mapping[str, Any] | None = None,
) -> str:
    """Return the page of an audit.

    Args:
        document: what audit.json holds. Parts of "curves", "why" and "panel" may be
            missing, and any number may be None or not finite.
        outcomes: the arrays of outcomes.npz.
        x: `(n, h, w, c)` in [0, 1], the audited images. Inputs that are no pictures are
            allowed; the page then has no gallery.
        other: what `compare` returned, if the page is to show another audit beside it.

    Returns:
        HTML of at most 3 MB for ten members and 100 classes. Text from the audit, such
        as names of files, is escaped.

    Raises:
        ValueError: if the outcomes are not those of `x`.
    """
    if not len(x) == len(outcomes["y"]) == len(outcomes["x_adv"]):
        raise ValueError(
            "`x` must be the images of the audit. "
            f"Received: {len(x)} images, outcomes for {len(outcomes['y'])}"
        )
    document, other = _finite(document), _finite(other)
    curves, why = document.get("curves") or {}, document.get("why") or {}
    pages = Environment(
        loader=PackageLoader("advens.auditing"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "percent": percent,
        "points": _points,
        "seconds": seconds,
        "quoted": shlex.join,
        "time": _time,
        "word": _word,
    }
    # The page forbids every script but this one, and every connection.
    script = pages.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return pages.get_template("report.html").render(
        audit=document,
        settings=document["settings"],
        eps=eps_label(document["settings"]["eps"]),
        votes=_word(document["settings"]["votes"]),
        norm=_word(document["settings"]["norm"]),
        attacks=_attacks(document),
        panel=document.get("panel") or [],
        charts=_curves(curves, document["settings"]["eps"]),
        smallest_eps=_smallest_eps(outcomes["smallest_eps"]),
        matrices=_matrices(why),
        calibration=_calibration(why.get("calibration") or {}),
        classes=_classes(why.get("classes") or []),
        tiles=gallery(document, outcomes, x),
        pictures=are_pictures(x),
        fates=FATES,
        other=other,
        both_curves=_both_curves(other["eps_curves"]) if other else None,
        script=Markup(script),
        script_hash=digest,
    )


def eps_label(eps: float) -> str:
    """Return eps as people write it: as a short decimal or in steps of 1/255."""
    levels = round(255 * eps)
    if f"{eps:.3g}" != f"{eps:.6g}" and abs(255 * eps - levels) < 1e-3:
        return f"{levels}/255"
    return f"{eps:.4g}"


def _finite(value: Any) -> Any:
    """Return a part of a document with None in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _attacks(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the attacks, each with the accuracy before it."""
    rows = []
    before = document["clean_accuracy"]
    for attack in document["attacks"]:
        after = attack["accuracy_after"] or before
        rows.append({**attack, "before": before, "accuracy_after": after})
        before = after
    return rows


def _curves(curves: Mapping[str, Any], eps: float) -> list[Chart]:
    """Return those of the three charts of which anything is known."""

    def read(name: str, x: str, y: str) -> list[tuple[float, Any]]:
        return [(point[x], point.get(y)) for point in curves.get(name) or []]

    charts = [
        line_chart(
            "Accuracy over eps",
            "eps",
            [
                Series("random noise", "noise", read("eps", "eps", "noise")),
                Series("attacks", "main", read("eps", "eps", "accuracy")),
            ],
            marker=eps,
        ),
        line_chart(
            "Accuracy over steps",
            "steps",
            [Series("attack", "main", read("steps", "num_steps", "accuracy"))],
            log=True,
        ),
        line_chart(
            "Accuracy over members",
            "members",
            [
                Series("clean", "second", read("members", "num_members", "clean")),
                Series("attacked", "main", read("members", "num_members", "accuracy")),
            ],
        ),
    ]
    return [chart for chart in charts if chart]


def _both_curves(curves: Sequence[Sequence[Mapping[str, Any]]]) -> Chart | None:
    lines = [
        Series(name, style, [(point["eps"], point["accuracy"]) for point in curve])
        for name, style, curve in zip(
            ("other audit", "this audit"), ("second", "main"), curves[::-1], strict=True
        )
    ]
    return line_chart("Accuracy over eps", "eps", lines)


def _smallest_eps(smallest: Floats) -> dict[str, Any] | None:
    """Return the median of the smallest eps that fools, and how many nothing fooled.

    It is 0 for images that are misclassified anyway, which do not count.
    """
    smallest = smallest[smallest > 0]
    if not smallest.size:
        return None
    median = float(np.median(smallest))
    return {
        "probed": len(smallest),
        "resisted": int(np.isinf(smallest).sum()),
        "median": median if math.isfinite(median) else None,
    }


def _matrices(why: Mapping[str, Any]) -> list[tuple[HeatMap, str]]:
    """Return the matrices of the members, each with the name of its explanation."""
    matrices = []
    for name, title, blank in (
        ("transfer", "Transfer: accuracy in %", 0.0),
        ("error_agreement", "Agreement of the errors", 0.0),
        ("sign_agreement", "Agreement of the gradients' signs", 0.5),
    ):
        values = why.get(name) or []
        if not 1 < len(values) <= MAX_MATRIX:
            continue
        columns = [str(i + 1) for i in range(len(values))]
        if shares := name == "transfer":
            columns.append("all")
        matrix = heat_map(title, columns, values, percentages=shares, blank=blank)
        matrices.append((matrix, name))
    return matrices


def _calibration(calibration: Mapping[str, Any]) -> list[Chart]:
    """Return a reliability diagram without attack and one under attack."""
    charts = []
    for name, title in (("clean", "Clean"), ("attacked", "Attacked")):
        if part := calibration.get(name):
            scores = f"ECE {_score(part['ece'])}, Brier {_score(part['brier'])}"
            style = "second" if name == "clean" else "main"
            charts.append(reliability_chart(f"{title}: {scores}", style, part["bins"]))
    return charts


def _classes(classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the classes, the least robust ones of many, with their main mistakes."""

    def robustness(row: Mapping[str, Any]) -> float:
        known = row["robust"] and row["robust"]["value"] is not None
        return row["robust"]["value"] if known else math.inf

    shown = list(classes)
    if len(shown) > MAX_CLASSES:
        shown = sorted(shown, key=robustness)[:MAX_CLASSES]
    rows = []
    for row in shown:
        counts = enumerate(row.get("taken_for") or [])
        mistakes = [(n, label) for label, n in counts if n and label != row["class"]]
        rows.append({**row, "mistakes": sorted(mistakes, key=lambda m: -m[0])[:3]})
    return {"rows": rows, "total": len(classes)}


def _points(value: float | None) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _word(value: Any) -> str:
    """Return how the page calls a setting, which may be a list of them."""
    if isinstance(value, list):
        return ", ".join(map(_word, value))
    return WORDS.get(str(value), str(value))


def _time(value: str) -> str:
    """Return an ISO 8601 time as people write it."""
    return value.replace("T", " ").replace("Z", " UTC").replace("+00:00", " UTC")


def seconds(value: float | None) -> str:
    """Return a time in a unit that people can imagine."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes > 90 else f"{minutes} min"
