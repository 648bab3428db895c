"""How strong Gauss Noise is: the noise at which accuracy without attack is the paper's.

It trains single networks on noise of several standard deviations and lets them answer
without attack; no attacked image has a say. One network each, unless `--num_members`
says otherwise. `python reproduce/noise_sweep.py` needs no data. It shares its flags and
its store with `table2.py` and may be killed: the same command goes on.
"""

from pathlib import Path

from absl import flags

from reproduce import common, records, runs, shared_flags
from reproduce.shared_flags import FLAGS

flags.adopt_module_key_flags(shared_flags)  # for --help
_NOISE_STDS = flags.DEFINE_list(
    "noise_stds", "0.1,0.2,0.3,0.4", "Standard deviations, in units of [0, 1] pixels."
)


def noise_sweep() -> None:
    """Train what is missing, let it answer, write and print."""
    try:
        noise_stds = list(dict.fromkeys(map(float, _NOISE_STDS.value)))
    except ValueError:
        raise ValueError(
            "`noise_stds` must be numbers, as 0.1,0.2. "
            f"Received: noise_stds={','.join(_NOISE_STDS.value)}"
        ) from None
    if FLAGS.noise_std is not None:
        raise ValueError(
            "`noise_std` has no place here: name what to try by `noise_stds`. "
            f"Received: noise_std={FLAGS.noise_std}"
        )
    if FLAGS["num_members"].using_default_value:
        FLAGS["num_members"].value = 1

    from advens import noise_sweep as sweep
    from advens import tables

    run = runs.make_run()
    cells = sweep.measure(run, noise_stds)
    frame = sweep.tidy(cells)
    name = f"noise_sweep_{run.dataset.name}"
    paths = tables.write_tidy(
        frame,
        sweep.packed(cells),
        records.record(run),
        y_test=run.dataset.y_test,
        out_dir=Path(FLAGS.out_dir),
        name=name,
    )
    console = common.console()
    title = ", ".join(["Accuracy without attack", name, *run.deviations()])
    console.print(sweep.render(frame, title=title))
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    common.main(noise_sweep)
