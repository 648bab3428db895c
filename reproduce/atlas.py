"""The atlas: Rand. Ini. of Table 2 under many answers to the paper's open points.

It trains the ensemble of each reading and attacks it with every reading of the labels.
docs/protocol.md, "How a reading is chosen", has the rule by which the nearest is
chosen. `python reproduce/atlas.py` needs no data; as the paper has no numbers for the
digits, nothing is chosen there. It shares its store with `table2.py`. If it is
interrupted, the same command continues; the CSV holds the readings that are done.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

import figure_flags
import records
import run_flags
import runs
import script
from advens import program
from advens.strauss2017 import constants
from result_flags import FIGURES_DIR
from run_flags import FLAGS
from runs import directory

if TYPE_CHECKING:
    from advens.strauss2017.cells import AtlasPoint
    from advens.strauss2017.run import Run

flags.adopt_module_key_flags(run_flags)  # for --help
flags.adopt_module_key_flags(figure_flags)
flags.declare_key_flag(FIGURES_DIR.name)
_EVERY = flags.DEFINE_integer(
    "every", None, "Attack every n-th test image; default: 5, of the digits 1.", 1
)
_ANSWERS = ("batch_size", "optimizer", "learning_rate", "momentum", "decay", "logits")


def atlas() -> None:
    """Train, attack, write and draw, reading after reading."""
    for name in (*_ANSWERS, "box", "num_members"):
        if not FLAGS[name].using_default_value:
            raise ValueError(
                f"`{name}` has no effect here: the atlas tries its own values. "
                f"Received: {name}={FLAGS[name].value}"
            )

    program.import_keras()
    from advens.strauss2017.atlas import measure_atlas

    figure_flags.check(directory("figures_dir"))
    run = runs.make_run()
    every = _EVERY.value or (5 if FLAGS.dataset in constants.TABLE2 else 1)
    run.dataset = run.dataset.every_test_image(every)
    measure_atlas(run, after_reading=lambda points: _write(run, points))


def _write(run: "Run", points: Sequence["AtlasPoint"]) -> None:
    """Write what is done: the numbers, their outcomes and the figure."""
    from advens.strauss2017.atlas_choice import atlas_frame, distances
    from advens.strauss2017.reporting import atlas_report, captions
    from advens.strauss2017.reporting.results import StoredTable
    from advens.strauss2017.reporting.tables import write_frame

    name = f"atlas_{run.dataset.name}"
    frame, record = atlas_frame(points), records.record(run)
    paths = write_frame(
        frame,
        [point.cell for point in points],
        record,
        y_test=run.dataset.y_test,
        out_dir=directory("out_dir"),
        name=name,
    )
    if readings := distances(frame):
        figure = atlas_report.atlas_figure(frame, readings, figure_flags.style())
        caption = captions.atlas_caption(StoredTable(frame, record), readings)
        figures_dir = directory("figures_dir")
        paths += figure_flags.save(figure, caption, out_dir=figures_dir, name=name)
        script.console().print(atlas_report.terminal_atlas(readings, title=name))
        script.console().print(atlas_report.verdict(readings))
    script.print_written(paths)


if __name__ == "__main__":
    script.main(atlas)
