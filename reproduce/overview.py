"""README's first picture: what attacks leave of one network and of an ensemble.

Rand. Ini. of Table 2, without attack, under the paper's BIM and under an audit with the
same eps. `python reproduce/overview.py` needs no data and takes some minutes. It shares
its flags and its store with `table2.py`. If it is interrupted, the same command
continues.
"""

from absl import flags

import records
import run_flags
import runs
import script
from advens import datasets, program
from result_flags import FIGURES_DIR
from run_flags import FLAGS
from runs import directory

flags.adopt_module_key_flags(run_flags)  # for --help
flags.declare_key_flag(FIGURES_DIR.name)
_MOST_IMAGES = 1000  # unless --test_images says otherwise


def overview() -> None:
    """Train what is missing, attack, write and draw."""
    program.import_keras()
    from advens.strauss2017.overview import measure_overview
    from advens.strauss2017.reporting import figure_style, overview_report
    from advens.strauss2017.reporting.tables import write_frame

    program.check_writable("figures_dir", directory("figures_dir"))
    run = runs.make_run()
    if FLAGS.test_images is None:
        count = min(_MOST_IMAGES, len(run.dataset.y_test))
        run.dataset = run.dataset.subset(None, count)
    cells = measure_overview(run)
    frame = overview_report.overview_frame(cells)
    name = f"overview_{run.dataset.name}"
    paths = write_frame(
        frame,
        cells,
        records.record(run),
        y_test=run.dataset.y_test,
        out_dir=directory("out_dir"),
        name=name,
    )
    figure = overview_report.overview_figure(
        frame,
        title=f"{datasets.display_name(run.dataset.name)}, "
        f"{len(run.dataset.y_test)} images",
        num_members=run.num_members,
        deviations=run.deviations(),
    )
    figures_dir = directory("figures_dir")
    paths += figure_style.save_figure(figure, out_dir=figures_dir, name=name)
    script.print_written(paths)


if __name__ == "__main__":
    script.main(overview)
