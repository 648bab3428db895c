"""From the flags to a run, and from its cells to a table's files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce import common, records
from reproduce.shared_flags import FLAGS, values

if TYPE_CHECKING:
    from advens.experiments import Run
    from advens.tables import Cell


def make_run(*more: str) -> "Run":
    """Return the run that the flags describe; all that can be wrong is found here.

    Args:
        more: flags of the script's own that are fields of `recipes.Settings`.
    """
    from advens import attacks, datasets, experiments, process, recipes, store
    from advens.progress import Bars

    settings = recipes.Settings(
        **values(
            *("dataset", "epochs", "batch_size", "optimizer", "learning_rate"),
            *("precision", "noise_std", "logits", *more),
        )
    )
    budgets = attacks.paper_attacks(
        **values("dataset", "box", "fgsm_eps", "bim_eps"),
        **values("bim_step_size", "bim_num_steps"),
    )
    options = values("num_members", "seed", "n_jobs", "stack")
    common.check_writable("out_dir")
    dataset = datasets.load(FLAGS.dataset, data_dir=FLAGS.data_dir)
    process.keep_memory()
    return experiments.Run(
        dataset=dataset.subset(FLAGS.train_images, FLAGS.test_images),
        settings=settings,
        attacks=budgets,
        store=store.Store(FLAGS.work_dir),
        bars=Bars(show=True),
        **{name: value for name, value in options.items() if value is not None},
    )


def publish(
    name: str, run: "Run", cells: Sequence["Cell"], columns: Mapping[str, str]
) -> None:
    """Write a table's files and print the table beside the columns' meaning.

    Args:
        name: of the table; the files are called `<name>_<dataset>`.
        run: which made it.
        cells: of the table.
        columns: what each column means.
    """
    from advens import tables

    deviations = run.deviations()
    stem, out_dir = f"{name}_{run.dataset.name}", Path(FLAGS.out_dir)
    record = records.record(run, earlier=records.path(name, run))
    paths = tables.write(
        cells, record, y_test=run.dataset.y_test, out_dir=out_dir, name=stem
    )
    title = f"Table {name[-1]} on {run.dataset.name}"
    if deviations:
        title += f" ({', '.join(deviations)})"
    console = common.console()
    console.print(tables.render(cells, title=title))
    for column, meaning in columns.items():
        console.print(f"{column}: {meaning}", highlight=False)
    console.print("Accuracies; in the second line of a cell the paper's value, if any.")
    if name == "table4":
        console.print("+: the best of the methods alone; *: the best of all.")
    for note in tables.lost_class_notes(run.lost_classes):
        console.print(note, highlight=False)
    for path in paths:
        console.print(f"wrote {path}", highlight=False)
