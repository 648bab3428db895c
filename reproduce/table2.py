"""Table 2: four kinds of ensembles under FGSM and BIM.

`python reproduce/table2.py` needs no data and takes some minutes; `--dataset=mnist` and
`--dataset=cifar10` are the paper's. It may be killed: the same command goes on.
"""

from absl import flags

from reproduce import common, records, runs, shared_flags

flags.adopt_module_key_flags(shared_flags)  # for --help
METHODS = ["rand_ini", "mix_mod", "bagging", "gauss_noise"]
_METHODS = flags.DEFINE_list("methods", METHODS, f"Rows, of {','.join(METHODS)}.")


def table2() -> None:
    """Train, attack, write and print."""
    methods = [method for method in METHODS if method in _METHODS.value]
    if not methods or set(_METHODS.value) - set(methods):
        raise ValueError(
            f"`methods` must be some of {','.join(METHODS)}. "
            f"Received: methods={','.join(_METHODS.value)}"
        )

    from advens import experiments, tables

    run = runs.make_run()
    records.check_replaces("table2", run, "methods")
    cells = experiments.table2(run, methods)
    runs.publish("table2", run, cells, tables.TABLE2_COLUMNS)


if __name__ == "__main__":
    common.main(table2)
