"""Tables 2 and 4 as LaTeX."""

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from advens.storage.files import write_all
from advens.strauss2017.reporting.captions import table_caption
from advens.strauss2017.reporting.latex import escaped
from advens.strauss2017.reporting.result_tables import number
from advens.strauss2017.reporting.results import command, read_stored
from advens.strauss2017.reporting.table_layout import heading, row_names, with_marks


def write_latex(results_dir: Path, table: str, dataset: str) -> list[Path]:
    """Write a table as LaTeX beside its other files, from these.

    They are `<table>_<dataset>.tex`, a `tabular`, and `<table>_<dataset>_caption.tex`,
    both or none.

    Args:
        results_dir: the directory of the files.
        table: `"table2"` or `"table4"`.
        dataset: the name of the data set.

    Returns:
        Their paths.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: if it is damaged.
    """
    stored = read_stored(results_dir, table, dataset)
    if stored is None:
        raise FileNotFoundError(
            f"{results_dir / table}_{dataset}_cells.csv is missing. Make it by: "
            f"{command(table, dataset)} --out_dir={results_dir}"
        )
    contents = {
        f"{table}_{dataset}.tex": latex_table(stored.cells).encode(),
        f"{table}_{dataset}_caption.tex": table_caption(stored).encode(),
    }
    return write_all(results_dir, contents)


def latex_table(frame: pd.DataFrame) -> str:
    r"""Return Table 2 or 4 as a `tabular`, for which `\usepackage{booktabs}` is needed.

    Below our numbers stand the paper's, in brackets. In Table 4 the best are marked,
    see `with_marks`.

    Args:
        frame: as of `tables.cell_frame`, of one data set.
    """
    frame = with_marks(frame)
    names, shown = row_names(frame), list(frame["column"].unique())
    header = [*map(_label, names), *map(_stacked, shown)]
    blocks = [frame]
    if "attack" in names:
        blocks = [block for _, block in frame.groupby("attack", sort=False)]
    lines = [
        f"\\begin{{tabular}}{{@{{}}{'l' * len(header)}@{{}}}}",
        r"\toprule",
        _line(header),
    ]
    for block in blocks:
        lines.append(r"\midrule")
        labels = {"attack": _label(block["attack"].iloc[0])}
        for method, row in block.groupby("method", sort=False):
            labels["method"] = _label(str(method))
            cells = {cell["column"]: cell for cell in row.to_dict("records")}
            of_row = [cells.get(column, {}) for column in shown]
            lines.append(
                _line([*(labels[name] for name in names), *map(_ours, of_row)])
            )
            if row["paper"].notna().any():
                lines.append(_line([*("" for _ in names), *map(_papers, of_row)]))
            labels["attack"] = ""  # stands above
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _line(entries: Iterable[str]) -> str:
    return f"{' & '.join(entries)} \\\\"


def _label(text: str) -> str:
    """Return a label as LaTeX; the points of its abbreviations end no sentence."""
    return escaped(text).replace(". ", ".\\ ")


def _stacked(column: str) -> str:
    words = r"\\".join(_label(word) for word in heading(column))
    return f"\\begin{{tabular}}[b]{{@{{}}l@{{}}}}{words}\\end{{tabular}}"


def _ours(cell: Mapping[Hashable, Any]) -> str:
    return number(cell["accuracy"]) + _superscript(cell["marks"]) if cell else ""


def _papers(cell: Mapping[Hashable, Any]) -> str:
    if not cell or np.isnan(cell["paper"]):
        return ""
    return f"({number(cell['paper'])}{_superscript(cell['paper_marks'])})"


def _superscript(marks: str) -> str:
    return f"$^{{{marks}}}$" if marks else ""
