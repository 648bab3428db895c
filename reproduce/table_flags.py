"""The flags of the scripts that make Tables 2 and 4."""

from typing import Final, get_args

from absl import flags

from advens.strauss2017.columns import TABLES, Choice

flags.DEFINE_enum(
    "columns",
    "default",
    get_args(Choice),
    "Which columns: the paper's, those with labels predicted again at every step, and "
    "the gradient of the ensemble's own loss; or all, also "
    f"{', '.join(c.name for t in TABLES.values() for c in t if not c.by_default)}.",
)
flags.DEFINE_float(
    "minutes", None, "Start no row when these are over; default: no limit."
)
flags.DEFINE_string(
    "export",
    None,
    "Directory to which the outcomes of each row are copied when it ends; another "
    "machine makes the same tables from them.",
)
LATEX: Final = flags.DEFINE_boolean(
    "latex", False, "Write the table as a LaTeX tabular, too, and its caption."
)
