"""From the flags to a run, and from its cells to a table's files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from advens import paper
from reproduce import common
from reproduce.shared_flags import FLAGS, all_values, values

if TYPE_CHECKING:
    from advens.experiments import Run
    from advens.tables import Cell


_SAME: Final = ("settings", "attacks", "seeds", "data", "hardware")


def make_run(*more: str) -> "Run":
    """Return the run that the flags describe; all that can be wrong is found here.

    Args:
        more: flags of the script's own that are fields of `recipes.Settings`.
    """
    from advens import datasets, experiments, recipes, store
    from advens.progress import Bars

    settings = recipes.Settings(
        **values(
            *("dataset", "epochs", "batch_size", "optimizer", "learning_rate"),
            *("precision", "noise_std", "logits", *more),
        )
    )
    attacks = experiments.paper_attacks(
        **values("dataset", "box", "fgsm_eps", "bim_eps"),
        **values("bim_step_size", "bim_num_steps"),
    )
    common.check_writable("out_dir")
    dataset = datasets.load(FLAGS.dataset, data_dir=FLAGS.data_dir)
    return experiments.Run(
        dataset=dataset.subset(FLAGS.train_images, FLAGS.test_images),
        settings=settings,
        attacks=attacks,
        store=store.Store(FLAGS.work_dir),
        **values("num_members", "seed", "n_jobs", "stack"),
        bars=Bars(show=True),
    )


def check_replaces(name: str, run: "Run", rows: str) -> None:
    """Raise a `ValueError` if a run would put less in the place of the paper's table.

    Args:
        name: of the table.
        run: about to start.
        rows: name of the flag with the table's rows.
    """
    path = Path(FLAGS.out_dir) / f"{name}_{run.dataset.name}.json"
    before = _read(path)
    if run.dataset.name not in paper.TABLE2 or before.get("differs_from_the_paper", 1):
        return
    less = run.deviations()
    less += sorted({*before["flags"][rows]} - {*values(rows)[rows]})
    if less:
        raise ValueError(
            f"`out_dir` must be another directory: {path} is of a whole run at the "
            "paper's scale, in the place of which this one would put less "
            f"({', '.join(less)}). Received: out_dir={FLAGS.out_dir!r}"
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
    entries = record(run)
    entries["seconds_per_stage"] = _seconds(entries, out_dir / f"{stem}.json")
    paths = tables.write(cells, entries, out_dir=out_dir, name=stem)
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
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


def _seconds(record: Mapping[str, Any], earlier: Path) -> dict[str, float]:
    """Return the seconds a stage, of the earlier run if that did what this one found.

    An earlier manifest counts if it is of the same settings, on the same hardware.
    """
    seconds = dict(record["seconds_per_stage"])
    before, now = _read(earlier), json.loads(json.dumps(record))
    if any(before.get(key) != now[key] for key in _SAME):
        return seconds
    spent = before["seconds_per_stage"]
    return {stage: max(spent.get(stage, 0), took) for stage, took in seconds.items()}


def _read(manifest: Path) -> dict[str, Any]:
    """Read a manifest; none is an empty one."""
    try:
        return json.loads(manifest.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{manifest} is no whole manifest ({error}). Remove it, or give another "
            "out_dir"
        ) from error


def record(run: "Run") -> dict[str, Any]:
    """Return the manifest of a run that has ended."""
    from advens.manifest import manifest

    return manifest(
        flags=all_values(),
        settings=dataclasses.asdict(run.settings),
        attacks=[dataclasses.asdict(attack) for attack in run.attacks],
        differs_from_the_paper=run.deviations(),
        seeds={"run": run.seed, "members": run.member_seeds},
        data={"name": run.dataset.name, "sha256": run.dataset.checksums},
        restarts=run.restarts,
        seconds_per_stage=run.seconds,
    )
