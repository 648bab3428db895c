"""Figure 2: Table 2 as bars, with intervals and with the paper's values.

It draws what `table2.py` wrote: without flags, that of MNIST and CIFAR-10 as far as it
is there, or else that of the digits.
"""

from pathlib import Path

from absl import flags

from reproduce import common, results_flags
from reproduce.results_flags import DATASETS, FIGURES_DIR, RESULTS_DIR

flags.adopt_module_key_flags(results_flags)  # for --help


def figure2() -> None:
    """Read the cells of Table 2, draw and write."""
    found = [name for name in ("mnist", "cifar10") if _table(name).exists()]
    names = dict.fromkeys(DATASETS.value or found or ["digits"])
    for name in names:
        if not _table(name).exists():
            raise FileNotFoundError(
                f"{_table(name)} is missing. Make it by: python reproduce/table2.py "
                f"--dataset={name} --out_dir={RESULTS_DIR.value}"
            )

    import pandas as pd

    from advens import figures, report

    tables = report.load(Path(RESULTS_DIR.value)).tables
    stored = {name: tables["table2", name] for name in names}
    figure = figures.figure2(
        pd.concat([table.cells for table in stored.values()]),
        {k: table.record["differs_from_the_paper"] for k, table in stored.items()},
    )
    out_dir = Path(FIGURES_DIR.value)
    for path in figures.save(figure, out_dir=out_dir, name="figure2"):
        print(f"wrote {path}")


def _table(dataset: str) -> Path:
    return Path(RESULTS_DIR.value) / f"table2_{dataset}_cells.csv"


if __name__ == "__main__":
    common.main(figure2)
