"""The flags of the scripts that draw and read: data sets, and where things lie."""

from typing import Final

from absl import flags

RESULTS_DIR: Final = flags.DEFINE_string("results_dir", "results", "Where tables lie.")
FIGURES_DIR: Final = flags.DEFINE_string(
    "figures_dir", "figures", "Directory of the figures."
)
DATASETS: Final = flags.DEFINE_list(
    "datasets", None, "Data sets of a figure, from top to bottom."
)
flags.register_validator(
    "datasets",
    lambda names: set(names or ()) <= {"digits", "mnist", "cifar10"},
    "must be some of digits,mnist,cifar10",
)
