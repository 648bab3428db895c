"""Table 4's open points: its defences under every combination of their answers.

Adversarial training with three eps, with and without clipping to [0, 1], away from true
and from predicted labels; distillation as printed and as Papernot et al. have it. Each
is one single network and Bagging of three. It tells which point moves which cell;
nothing is chosen on it. `python reproduce/defense_points.py` needs no data. It shares
its flags and its store with `table4.py`. If it is interrupted, the same command
continues; the CSV holds the combinations that are done.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

import records
import run_flags
import runs
import script
from advens import program
from run_flags import FLAGS
from runs import directory

if TYPE_CHECKING:
    from advens.strauss2017.cells import DefensePoint
    from advens.strauss2017.run import Run

flags.adopt_module_key_flags(run_flags)  # for --help


def defense_points() -> None:
    """Train, attack, write and print, combination after combination."""
    program.import_keras()
    from advens.strauss2017.defense_points import NUM_MEMBERS, measure_points

    num_members = FLAGS.num_members
    if FLAGS["num_members"].using_default_value:
        num_members = NUM_MEMBERS
    run = runs.make_run(num_members=num_members)
    measure_points(run, after_combination=lambda points: _write(run, points))


def _write(run: "Run", points: Sequence["DefensePoint"]) -> None:
    from advens.strauss2017.reporting import points_report
    from advens.strauss2017.reporting.tables import write_frame

    name = f"defense_points_{run.dataset.name}"
    frame = points_report.points_frame(points)
    paths = write_frame(
        frame,
        [point.to_pack for point in points],
        records.record(run, overrides={"num_members": run.num_members}),
        y_test=run.dataset.y_test,
        out_dir=directory("out_dir"),
        name=name,
    )
    console = script.console()
    console.print(points_report.terminal_points(frame, title=name))
    script.print_written(paths)


if __name__ == "__main__":
    script.main(defense_points)
