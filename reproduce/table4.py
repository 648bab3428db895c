"""Table 4: bagging beside adversarial training, distillation, and their combinations.

It shares its flags and its store with `table2.py`: a member that was trained for Table
2 is not trained again. If it is interrupted, the same command continues.
"""

from typing import get_args

from absl import flags

import records
import run_flags
import runs
import script
import table_flags
from advens import program
from advens.defenses.settings import DistillationFormula, PerturbationLabels
from advens.strauss2017 import rows
from advens.strauss2017.settings import NUM_SINGLES, Settings

flags.adopt_module_key_flags(run_flags)  # for --help
flags.adopt_module_key_flags(table_flags)
_ROWS = flags.DEFINE_list(
    "rows",
    list(rows.TABLE4_ROWS),
    f"Rows: one or more of {', '.join(rows.PARTS)}, joined by +. A row without any of "
    f"{', '.join(rows.TABLE2_ROWS)} is of single networks.",
)
_NUM_SINGLES = flags.DEFINE_integer(
    "num_singles", NUM_SINGLES, "Number of networks behind a row of single networks."
)
flags.DEFINE_float("adv_eps", None, "The eps of FGSM in adversarial training.")
flags.DEFINE_boolean(
    "adv_box", Settings.adv_box, "Clip images to [0, 1] in adversarial training."
)
flags.DEFINE_enum(
    "adv_labels",
    Settings.adv_labels,
    get_args(PerturbationLabels),
    "The labels that adversarial training perturbs away from.",
)
flags.DEFINE_float(
    "rho", Settings.rho, "Weight of the loss without attack in adversarial training."
)
flags.DEFINE_float(
    "temperature", Settings.temperature, "Temperature of defensive distillation."
)
flags.DEFINE_enum(
    "distillation",
    Settings.distillation,
    get_args(DistillationFormula),
    "Smoothed labels: the softmax of the teacher's probabilities over T, as the paper "
    "prints it, or of its logits over T, as Papernot et al. have it.",
)


def table4() -> None:
    """Train, attack, write and print."""
    names = list(dict.fromkeys(_ROWS.value))
    if not names:
        raise ValueError("`rows` must hold at least one row. Received: none")
    for row in names:
        rows.parts(row)

    program.import_keras()
    from advens.strauss2017 import experiments

    run = runs.make_run()
    records.check_replaces("table4", run, "rows")
    cells = experiments.table4(run, names, num_singles=_NUM_SINGLES.value)
    records.publish("table4", run, cells, latex=table_flags.LATEX.value)


if __name__ == "__main__":
    script.main(table4)
