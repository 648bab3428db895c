"""Table 4: bagging beside adversarial training, distillation, and their combinations.

It shares its flags and its store with `table2.py`: a member that Table 2 has trained is
not trained again.
"""

from absl import flags

from reproduce import common, records, runs, shared_flags

flags.adopt_module_key_flags(shared_flags)  # for --help
ROWS = ["bagging", "adv_train", "def_dist", "bagging+adv_train", "bagging+def_dist"]
_ROWS = flags.DEFINE_list(
    "rows",
    ROWS,
    "Rows: one or more of rand_ini, mix_mod, bagging, gauss_noise, adv_train and "
    "def_dist, joined by +. Without one of the first four it is of single networks.",
)
_NUM_SINGLES = flags.DEFINE_integer(
    "num_singles", 1, "Networks behind a row of single networks."
)
flags.DEFINE_float("adv_eps", None, "FGSM eps of adversarial training.")
flags.DEFINE_float("rho", 0.5, "Weight of the clean loss in adversarial training.")
flags.DEFINE_float("temperature", 10.0, "Temperature of defensive distillation.")
flags.DEFINE_enum(
    "distillation",
    "printed",
    ["printed", "papernot"],
    "Smoothed labels: softmax of the teacher's probabilities over T, as the paper has "
    "it, or of its logits over T.",
)


def table4() -> None:
    """Train, attack, write and print."""
    from advens import experiments, recipes, tables

    rows = list(dict.fromkeys(_ROWS.value))
    if not rows:
        raise ValueError("`rows` must hold at least one row. Received: none")
    for row in rows:
        recipes.parts(row)
    run = runs.make_run("adv_eps", "rho", "temperature", "distillation")
    records.check_replaces("table4", run, "rows")
    cells = experiments.table4(run, rows, num_singles=_NUM_SINGLES.value)
    runs.publish("table4", run, cells, tables.TABLE4_COLUMNS)


if __name__ == "__main__":
    common.main(table4)
