"""Figure 2: Table 2 as bars, with intervals and with the paper's values.

It draws what `table2.py` wrote: without flags, that of MNIST and CIFAR-10 as far as it
is there, or else that of the digits.
"""

import json
from pathlib import Path

from absl import flags

from reproduce import common, results_flags
from reproduce.results_flags import DATASETS, FIGURES_DIR, RESULTS_DIR

flags.adopt_module_key_flags(results_flags)  # for --help


def figure2() -> None:
    """Read the cells of Table 2, draw and write."""
    found = [
        name for name in ("mnist", "cifar10") if _table(name, "_cells.csv").exists()
    ]
    names = dict.fromkeys(DATASETS.value or found or ["digits"])
    for name in names:
        for ending in ("_cells.csv", ".json"):
            if not _table(name, ending).exists():
                raise FileNotFoundError(
                    f"{_table(name, ending)} is missing. Make it by: python "
                    f"reproduce/table2.py --dataset={name} "
                    f"--out_dir={RESULTS_DIR.value}"
                )

    import pandas as pd

    from advens import figures

    cells = pd.concat([pd.read_csv(_table(name, "_cells.csv")) for name in names])
    records = {name: json.loads(_table(name, ".json").read_text()) for name in names}
    deviations = {k: record["differs_from_the_paper"] for k, record in records.items()}
    figure = figures.figure2(cells, deviations)
    out_dir = Path(FIGURES_DIR.value)
    for path in figures.save(figure, out_dir=out_dir, name="figure2"):
        print(f"wrote {path}")


def _table(dataset: str, ending: str) -> Path:
    return Path(RESULTS_DIR.value) / f"table2_{dataset}{ending}"


if __name__ == "__main__":
    common.main(figure2)
