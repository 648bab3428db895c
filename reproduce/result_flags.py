"""The flags of the scripts that read and draw: data sets, and where files lie."""

from typing import Final

from absl import flags

RESULTS_DIR: Final = flags.DEFINE_string(
    "results_dir", "results", "Directory of the tables."
)
FIGURES_DIR: Final = flags.DEFINE_string(
    "figures_dir", "figures", "Directory of the figures."
)
DATASETS: Final = flags.DEFINE_list(
    "datasets", None, "Data sets of a figure, from top to bottom."
)
