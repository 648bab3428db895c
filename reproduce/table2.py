"""Table 2: four kinds of ensembles under FGSM and BIM.

`python reproduce/table2.py` needs no data and takes some minutes. `--dataset=mnist` and
`--dataset=cifar10` are the paper's. If it is interrupted, the same command continues.
"""

from absl import flags

import records
import run_flags
import runs
import script
import table_flags
from advens import program
from advens.strauss2017.rows import TABLE2_ROWS

flags.adopt_module_key_flags(run_flags)  # for --help
flags.adopt_module_key_flags(table_flags)
_METHODS = flags.DEFINE_list(
    "methods", list(TABLE2_ROWS), f"Rows: some of {','.join(TABLE2_ROWS)}."
)


def table2() -> None:
    """Train, attack, write and print."""
    methods = [method for method in TABLE2_ROWS if method in _METHODS.value]
    if not methods or set(_METHODS.value) - set(methods):
        raise ValueError(
            f"`methods` must be some of {','.join(TABLE2_ROWS)}. "
            f"Received: methods={','.join(_METHODS.value)}"
        )

    program.import_keras()
    from advens.strauss2017 import experiments

    run = runs.make_run()
    records.check_replaces("table2", run, "methods")
    cells = experiments.table2(run, methods)
    records.publish("table2", run, cells, latex=table_flags.LATEX.value)


if __name__ == "__main__":
    script.main(table2)
