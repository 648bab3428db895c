"""Where BIM is weaker through Grad. 2 than through Grad. 1: its accuracy step by step.

It attacks an ensemble of Table 2 through Grad. 1, Grad. 2 and the ensemble's own
gradient, with true labels, labels predicted once, and labels predicted again at every
step, in the box and out of it, and judges each of the first twelve iterates.
`python reproduce/anomaly.py` needs no data. Unless `--test_images` says otherwise it
attacks the first 100 test images of the digits and the first 1,000 of MNIST and
CIFAR-10. It shares its flags and its store with `table2.py`, whose members are not
trained again, and may be killed: the same command goes on.
"""

from pathlib import Path

from absl import flags

from reproduce import common, records, runs, shared_flags
from reproduce.results_flags import FIGURES_DIR
from reproduce.shared_flags import FLAGS

flags.adopt_module_key_flags(shared_flags)  # for --help
flags.declare_key_flag("figures_dir")
_METHOD = flags.DEFINE_string(
    "method", "rand_ini", "The ensemble, as a row of table4.py."
)
_MAX_NUM_STEPS = flags.DEFINE_integer(
    "max_num_steps", 12, "Steps of the walk; the table shows it after those of BIM."
)
_NUM_GRAD1 = flags.DEFINE_integer(
    "num_grad1", None, "Members whose gradients are Grad. 1 in turn; default: all."
)


def anomaly() -> None:
    """Train what is missing, attack, write, draw and print."""
    for name in ("box", "fgsm_eps"):
        if FLAGS[name].value:
            raise ValueError(
                f"`{name}` has no place here: BIM is run in the box and out of it, "
                f"FGSM not at all. Received: {name}={FLAGS[name].value}"
            )
    if FLAGS.test_images is None:
        FLAGS["test_images"].value = 100 if FLAGS.dataset == "digits" else 1000

    from advens import anomaly as steps
    from advens import figures, tables

    common.check_writable("figures_dir")
    run = runs.make_run()
    points = steps.measure(
        run,
        _METHOD.value,
        max_num_steps=_MAX_NUM_STEPS.value,
        num_grad1=_NUM_GRAD1.value,
    )
    name = f"anomaly_{run.dataset.name}"
    out_dir, figures_dir = Path(FLAGS.out_dir), Path(FIGURES_DIR.value)
    paths = tables.write_tidy(
        steps.tidy(points),
        [point.cell for point in points],
        records.record(run),
        y_test=run.dataset.y_test,
        out_dir=out_dir,
        name=name,
    )
    figure = figures.anomaly(steps.tidy(points), run.deviations())
    paths += figures.save(figure, out_dir=figures_dir, name=name)

    (bim,) = (attack for attack in run.attacks if attack.name == "BIM")
    title = ", ".join([f"BIM, n = {bim.num_steps}, {name}", *run.deviations()])
    console = common.console()
    console.print(steps.render(points, num_steps=bim.num_steps, title=title))
    for column in steps.COLUMNS:
        console.print(f"{column}: {tables.TABLE2_COLUMNS[column]}", highlight=False)
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    common.main(anomaly)
