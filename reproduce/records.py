"""The manifest of a run, and that of the run before it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advens import paper
from reproduce.shared_flags import FLAGS, all_values, values

if TYPE_CHECKING:
    from advens.experiments import Run


def path(name: str, run: "Run") -> Path:
    """Return where the manifest of a table lies."""
    return Path(FLAGS.out_dir) / f"{name}_{run.dataset.name}.json"


def record(run: "Run", *, earlier: Path | None = None) -> dict[str, Any]:
    """Return the manifest of a run that has ended.

    Args:
        run: which has ended.
        earlier: the manifest that it is about to replace, from which it takes the
            seconds of what that run did and this one found done.
    """
    from advens import manifest

    found = manifest.manifest(
        flags={**all_values(), "n_jobs": run.n_jobs},
        settings=dataclasses.asdict(run.settings),
        attacks=[dataclasses.asdict(attack) for attack in run.attacks],
        differs_from_the_paper=run.deviations(),
        seeds={"run": run.seed, "members": run.member_seeds},
        data={"name": run.dataset.name, "sha256": run.dataset.checksums},
        restarts=run.restarts,
        lost_classes=run.lost_classes,
        seconds_per_stage=run.seconds,
    )
    return manifest.with_seconds(found, manifest.read(earlier)) if earlier else found


def check_replaces(name: str, run: "Run", rows: str) -> None:
    """Raise a `ValueError` if a run would put less in the place of a table.

    That is a reduced run in the place of one at the paper's scale, or one that lacks
    rows. A table of a data set that is not the paper's may be replaced by any.

    Args:
        name: of the table.
        run: about to start.
        rows: name of the flag with the table's rows.
    """
    from advens import manifest

    before = manifest.read(path(name, run))
    if run.dataset.name not in paper.TABLE2 or not before:
        return
    less = [] if before.get("differs_from_the_paper") else run.deviations()
    missing = sorted({*before["flags"][rows]} - {*values(rows)[rows]})
    if less or missing:
        less += [f"no {row}" for row in missing]
        raise ValueError(
            "`out_dir` must be another directory: this run would put less "
            f"({', '.join(less)}) in the place of {path(name, run)}. Received: "
            f"out_dir={FLAGS.out_dir!r}"
        )
