"""Figure 2: Table 2 as bars, with intervals and with the paper's numbers.

It draws what `table2.py` wrote: without flags, MNIST and CIFAR-10 as far as they are
there, or else the digits.
"""

from pathlib import Path

from absl import flags

import figure_flags
import result_flags
import script
from advens import datasets
from advens.strauss2017 import constants
from result_flags import DATASETS, FIGURES_DIR, RESULTS_DIR

flags.adopt_module_key_flags(result_flags)  # for --help
flags.adopt_module_key_flags(figure_flags)


def figure2() -> None:
    """Read the cells of Table 2, draw and write."""
    existing = [name for name in constants.TABLE2 if _cells_path(name).exists()]
    names = list(dict.fromkeys(DATASETS.value or existing or datasets.NAMES[:1]))
    for name in names:
        if not _cells_path(name).exists():
            raise FileNotFoundError(
                f"{_cells_path(name)} is missing. Make it by: python "
                f"reproduce/table2.py --dataset={name} --out_dir={RESULTS_DIR.value}"
            )

    import pandas as pd

    from advens.strauss2017.reporting import captions, figures, results

    out_dir = Path(FIGURES_DIR.value)
    figure_flags.check(out_dir)
    tables = results.read_results(Path(RESULTS_DIR.value)).tables
    stored = {name: tables["table2", name] for name in names}
    figure = figures.figure2(
        pd.concat([table.cells for table in stored.values()]),
        {name: table.deviations for name, table in stored.items()},
        figure_flags.style(),
    )
    caption = captions.figure2_caption(stored)
    script.print_written(
        figure_flags.save(figure, caption, out_dir=out_dir, name="figure2")
    )


def _cells_path(dataset: str) -> Path:
    return Path(RESULTS_DIR.value) / f"table2_{dataset}_cells.csv"


if __name__ == "__main__":
    script.main(figure2)
