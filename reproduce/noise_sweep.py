"""How strong Gauss Noise is: the noise at which accuracy without attack is the paper's.

It trains single networks on noise of several standard deviations and judges them
without attack; no attacked image has any influence. By default there is one network for
each. `python reproduce/noise_sweep.py` needs no data. It shares its flags and its store
with `table2.py`. If it is interrupted, the same command continues.
"""

from absl import flags

import records
import run_flags
import runs
import script
from advens import program
from run_flags import FLAGS
from runs import directory

flags.adopt_module_key_flags(run_flags)  # for --help
_NOISE_STDS = flags.DEFINE_list(
    "noise_stds", "0.1,0.2,0.3,0.4", "Standard deviations, in units of [0, 1] pixels."
)


def noise_sweep() -> None:
    """Train what is missing, judge it, write and print."""
    try:
        noise_stds = list(dict.fromkeys(map(float, _NOISE_STDS.value)))
    except ValueError:
        raise ValueError(
            "`noise_stds` must be numbers, such as 0.1,0.2. "
            f"Received: noise_stds={','.join(_NOISE_STDS.value)}"
        ) from None
    if FLAGS.noise_std is not None:
        raise ValueError(
            "`noise_std` has no effect here: use `noise_stds`. "
            f"Received: noise_std={FLAGS.noise_std}"
        )
    num_members = FLAGS.num_members
    if FLAGS["num_members"].using_default_value:
        num_members = 1

    program.import_keras()
    from advens.strauss2017.noise_sweep import measure_noise
    from advens.strauss2017.reporting import noise_report
    from advens.strauss2017.reporting.tables import write_frame

    run = runs.make_run(num_members=num_members)
    cells = measure_noise(run, noise_stds)
    frame = noise_report.noise_frame(cells)
    name = f"noise_sweep_{run.dataset.name}"
    paths = write_frame(
        frame,
        noise_report.noise_cells_to_pack(cells),
        records.record(run, overrides={"num_members": num_members}),
        y_test=run.dataset.y_test,
        out_dir=directory("out_dir"),
        name=name,
    )
    title = ", ".join(["Accuracy without attack", name, *run.deviations()])
    script.console().print(noise_report.terminal_noise(frame, title=title))
    script.print_written(paths)


if __name__ == "__main__":
    script.main(noise_sweep)
