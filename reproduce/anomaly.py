"""The anomaly: where BIM is weaker through Grad. 2 than through Grad. 1, step by step.

It attacks an ensemble of Table 2 through Grad. 1, Grad. 2 and the ensemble's own
gradient: with true labels, with labels predicted once and with labels predicted again
at every step, with and without clipping to [0, 1]. Each of the first twelve steps is
judged. By default it attacks the first 100 test images of the digits, and the first
1,000 of MNIST and CIFAR-10.

`python reproduce/anomaly.py` needs no data. It shares its flags and its store with
`table2.py`, whose members are not trained again. If it is interrupted, the same command
continues.
"""

from absl import flags

import figure_flags
import records
import run_flags
import runs
import script
from advens import program
from advens.strauss2017 import columns, constants, rows
from advens.strauss2017.settings import MAX_NUM_STEPS
from result_flags import FIGURES_DIR
from run_flags import FLAGS
from runs import directory

flags.adopt_module_key_flags(run_flags)  # for --help
flags.adopt_module_key_flags(figure_flags)
flags.declare_key_flag(FIGURES_DIR.name)
_METHOD = flags.DEFINE_string(
    "method", rows.TABLE2_ROWS[0], "The ensemble, as a row of table4.py."
)
_MAX_NUM_STEPS = flags.DEFINE_integer(
    "max_num_steps",
    MAX_NUM_STEPS,
    "Number of steps; the printed table shows the accuracy after BIM's own.",
)
_NUM_GRAD1 = flags.DEFINE_integer(
    "num_grad1", None, "Number of members whose gradient is Grad. 1; default: all."
)


def anomaly() -> None:
    """Train what is missing, attack, write, draw and print."""
    for name in ("box", "fgsm_eps"):
        if FLAGS[name].value:
            raise ValueError(
                f"`{name}` has no effect here: BIM is run with and without the box, "
                f"FGSM not at all. Received: {name}={FLAGS[name].value}"
            )
    test_images = FLAGS.test_images
    if test_images is None:
        test_images = 1000 if FLAGS.dataset in constants.TABLE2 else 100

    program.import_keras()
    from advens.strauss2017.anomaly import measure_anomaly
    from advens.strauss2017.reporting import anomaly_report, captions, figures
    from advens.strauss2017.reporting.results import StoredTable
    from advens.strauss2017.reporting.tables import write_frame

    figures_dir = directory("figures_dir")
    figure_flags.check(figures_dir)
    run = runs.make_run(test_images=test_images)
    points = measure_anomaly(
        run,
        _METHOD.value,
        max_num_steps=_MAX_NUM_STEPS.value,
        num_grad1=_NUM_GRAD1.value,
    )
    frame = anomaly_report.anomaly_frame(points)
    record = records.record(run, overrides={"test_images": test_images})
    name = f"anomaly_{run.dataset.name}"
    paths = write_frame(
        frame,
        [point.cell for point in points],
        record,
        y_test=run.dataset.y_test,
        out_dir=directory("out_dir"),
        name=name,
    )
    figure = figures.anomaly_figure(frame, run.deviations(), figure_flags.style())
    caption = captions.anomaly_caption(StoredTable(frame, record))
    paths += figure_flags.save(figure, caption, out_dir=figures_dir, name=name)

    (bim,) = (attack for attack in run.attacks if attack.name == "BIM")
    title = ", ".join([f"BIM, n = {bim.num_steps}, {name}", *run.deviations()])
    console = script.console()
    console.print(
        anomaly_report.terminal_anomaly(points, num_steps=bim.num_steps, title=title)
    )
    for column in columns.ANOMALY:
        console.print(f"{column.name}: {column.meaning}", highlight=False)
    script.print_written(paths)


if __name__ == "__main__":
    script.main(anomaly)
