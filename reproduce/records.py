"""What a run leaves behind: its manifest, and the files of a table."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import script
from advens.strauss2017 import constants
from advens.strauss2017.readings import columns_read
from runs import Values, all_values, directory

if TYPE_CHECKING:
    from advens.strauss2017.cells import Cell
    from advens.strauss2017.reporting.manifest import Record
    from advens.strauss2017.run import Run


def manifest_path(name: str, run: "Run") -> Path:
    """Return the path of the manifest of a table."""
    return directory("out_dir", run.dataset.name) / f"{name}_{run.dataset.name}.json"


def record(
    run: "Run",
    *,
    overrides: Values | None = None,
    earlier: Path | None = None,
) -> "Record":
    """Return the manifest of a run that has ended.

    Args:
        run: the run.
        overrides: values that took the place of flags, see `runs.make_run`.
        earlier: the manifest that this one will replace. It tells how long the work
            took that this run found done.
    """
    from advens import backend
    from advens.strauss2017.reporting.manifest import (
        manifest,
        read_manifest,
        with_earlier_seconds,
    )

    of_run = manifest(
        backend=backend.name(),
        devices=backend.devices(),
        flags=all_values() | (overrides or {}) | {"n_jobs": run.n_jobs},
        reading={"name": run.reading.name, "labels": run.labels},
        settings=dataclasses.asdict(run.settings),
        attacks=[dataclasses.asdict(attack) for attack in run.attacks],
        differs_from_the_paper=run.deviations(),
        seeds={"run": run.seed, "members": run.member_seeds},
        data={"name": run.dataset.name, "sha256": run.dataset.checksums},
        restarts=run.restarts,
        lost_classes=run.lost_classes,
        seconds_per_stage=run.seconds,
    )
    if earlier is None:
        return of_run
    return with_earlier_seconds(of_run, read_manifest(earlier))


def check_replaces(name: str, run: "Run", rows: str) -> None:
    """Raise a `ValueError` if a run would replace a table by a lesser or another one.

    A lesser table is one of a reduced run in the place of one at the paper's scale, or
    one that lacks rows or columns; another one is that of another reading. Tables of a
    data set that is not the paper's are not protected.

    Args:
        name: the name of the table.
        run: the run that is about to start.
        rows: the name of the flag that lists the table's rows.
    """
    from advens.strauss2017.reporting.manifest import read_manifest, reading_name

    earlier = read_manifest(manifest_path(name, run))
    if run.dataset.name not in constants.TABLE2 or not earlier:
        return
    reading = reading_name(earlier)
    reduced = [] if earlier.get("differs_from_the_paper") else run.deviations()
    missing = sorted(set(earlier["flags"][rows]) - set(all_values()[rows]))
    # While there was no such flag, tables had all columns.
    choice = earlier["flags"].get("columns", "all")
    kept = run.columns_of(name)
    missing += [
        column.name
        for column in columns_read(name, run.labels, choice)
        if column not in kept
    ]
    losses = reduced + [f"no {row}" for row in missing]
    if reading != run.reading.name:
        losses.append(f"reading {run.reading.name}, not {reading}")
    if losses:
        raise ValueError(
            f"`out_dir` must be another directory: {manifest_path(name, run)} would be "
            f"replaced by a lesser or another table ({', '.join(losses)}). Received: "
            f"out_dir={str(directory('out_dir', run.dataset.name))!r}"
        )


def publish(name: str, run: "Run", cells: Sequence["Cell"], *, latex: bool) -> None:
    """Write the files of a table, and print the table with the meaning of its columns.

    Args:
        name: the name of the table; its files are called `<name>_<dataset>`.
        run: the run that made it.
        cells: its cells.
        latex: whether to write it as LaTeX, too.
    """
    from advens.strauss2017.reporting import latex_tables, table_layout, tables

    out_dir = directory("out_dir", run.dataset.name)
    paths = tables.write_table(
        cells,
        record(run, earlier=manifest_path(name, run)),
        y_test=run.dataset.y_test,
        out_dir=out_dir,
        name=f"{name}_{run.dataset.name}",
    )
    if latex:
        paths += latex_tables.write_latex(out_dir, name, run.dataset.name)
    title = (
        f"Table {name.removeprefix('table')} on {run.dataset.name}, reading "
        f"{run.reading.name!r}"
    )
    deviations = run.deviations()
    if deviations:
        title += f" ({', '.join(deviations)})"
    console = script.console()
    console.print(tables.terminal_table(cells, title=title))
    for column in run.columns_of(name):
        console.print(f"{column.name}: {column.meaning}", highlight=False)
    console.print(
        "The numbers are accuracies. The second line of a cell is the paper's number, "
        "if there is one."
    )
    if name == "table4":
        console.print(table_layout.MARKS_MEANING)
    for note in tables.lost_class_notes(run.lost_classes):
        console.print(note, highlight=False)
    script.print_written(paths)
    if run.export_dir:
        print(f"exported the outcomes to {run.export_dir}")
