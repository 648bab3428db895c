"""Table 2: four kinds of ensembles under FGSM and BIM.

`python reproduce/table2.py` needs no data and takes some minutes; `--dataset=mnist` and
`--dataset=cifar10` are the paper's. It may be killed: the same command goes on.
"""

from absl import flags

from reproduce import common

METHODS = ("rand_ini", "mix_mod", "bagging", "gauss_noise")
_METHODS = flags.DEFINE_list("methods", list(METHODS), f"Rows, of {METHODS}.")


def table2() -> None:
    """Train, attack, write and print."""
    methods = common.choices("methods", _METHODS.value, METHODS)
    run = common.make_run()

    from advens import experiments, tables

    common.publish(
        "table2", run, experiments.table2(run, methods), tables.TABLE2_COLUMNS
    )


if __name__ == "__main__":
    common.main(table2)
