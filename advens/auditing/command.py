"""`advens-audit`: how robust are these models, voting together, on these images?

  advens-audit models/*.keras --data=images.npz --eps=8/255 --out=audit

The arguments are models: .keras or .h5 files, directories of SavedModels or, with
--builder, files of weights. The trained ensembles that come with advens are named by
themselves: advens-audit digits_rand_ini --dataset=digits --eps=0.1

The command writes report.html, and the numbers of that page as audit.json, cells.csv
and outcomes.npz. If it is interrupted, the same command continues from there.
"""

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from absl.flags import FlagValues

from advens import program
from advens.arrays import Images, Labels
from advens.auditing import options
from advens.auditing.data import load_dataset, load_file
from advens.auditing.files import Document, read_audit, write_audit
from advens.checks import check_labels

if TYPE_CHECKING:
    from advens.models.ensemble import Ensemble

# How TensorFlow, JAX and numpy say that there is too little memory.
_NO_MEMORY: Final = ("OOM when allocating", "RESOURCE_EXHAUSTED", "Unable to allocate")


def main(argv: list[str] | None = None) -> None:
    """Audit the models that a command line names; on bad input, exit with code 1.

    Args:
        argv: the command line; None for that of the process.
    """
    program.start()
    argv = sys.argv if argv is None else argv
    with program.errors_in_one_line():
        models, values = options.parse(argv)
        if values.help:
            print(__doc__ + values.get_help())
        else:
            _run(models, values, ["advens-audit", *argv[1:]])


def _run(models: list[str], values: FlagValues, command: list[str]) -> None:
    x, y = _data(values)
    program.import_keras(seed=values.seed)
    from advens import backend, process
    from advens.auditing.audit import audit
    from advens.auditing.compare import compare
    from advens.auditing.report import render
    from advens.cluster.client import Cluster
    from advens.progress import Bars
    from advens.storage.store import Store

    other = _other(values, x, y)
    process.keep_memory()
    backend.make_deterministic()
    backend.use_full_float32()
    out = Path(values.out)
    with _backend_errors_explained():
        ensemble, files = _ensemble(models, values, x, y)
        program.check_writable("out", out)
        store = Store(values.work_dir or out / "work")
        with contextlib.ExitStack() as stack:
            cluster = None
            if values.cluster:
                cluster = stack.enter_context(
                    contextlib.closing(Cluster(values.cluster, store))
                )
            result = audit(
                ensemble,
                x,
                y,
                eps=values.eps,
                norm=values.norm,
                seed=values.seed,
                **{name: getattr(values, name) for name in options.COUNTS},
                store=store,
                cluster=cluster,
                time_budget=values.time_budget,
                bars=Bars(show=not values.quiet),
            )
    document, outcomes = result.document() | {"command": command}, result.arrays()
    document["data"]["file"] = values.data or values.dataset
    for member, file in zip(document["members"], files, strict=True):
        member["file"] = file
    comparison = other and compare(document, outcomes, *other)
    if comparison:
        document["comparison"] = {"file": values.compare, **comparison}
    page = render(document, outcomes, x, other=comparison)
    written = write_audit(out, document, outcomes, page)
    if not values.quiet:
        _print(document)
        print(*(f"wrote {path}" for path in written), sep="\n")


def _data(values: FlagValues) -> tuple[Images, Labels]:
    if values.data is None:
        x, y = load_dataset(
            values.dataset, data_dir=values.data_dir, images=values.images
        )
    else:
        x, y = load_file(Path(values.data), images=values.images, scale=values.scale)
    largest = 1.0 if values.norm == "linf" else math.sqrt(x[0].size)
    if values.eps > largest:
        raise ValueError(
            f"`eps` must be <= {largest:g}, the norm of the largest change of an image "
            f"in [0, 1]; for 8 of 255, pass --eps=8/255. Received: eps={values.eps:g}"
        )
    return x, y


def _other(
    values: FlagValues, x: Images, y: Labels
) -> tuple[Document, dict[str, np.ndarray]] | None:
    """Return the audit to compare with, if any; that of other images is refused."""
    from advens.auditing.checksums import checksum

    if values.compare is None:
        return None
    document, outcomes = read_audit(Path(values.compare))
    same = document["data"]["sha256"] == checksum([x])
    if not (same and np.array_equal(outcomes["y"], y)):
        raise ValueError(
            f"{values.compare} must be an audit of the same images with the same "
            f"labels. Received: one of {len(outcomes['y'])} images, these are {len(y)}"
        )
    return document, outcomes


def _ensemble(
    models: list[str], values: FlagValues, x: Images, y: Labels
) -> tuple["Ensemble", list[str]]:
    """Load the models; refuse those that cannot classify these images.

    Returns:
        The ensemble, and for each member where it comes from.
    """
    from advens import pretrained
    from advens.auditing import loading
    from advens.auditing.saved_model import check_gradient
    from advens.models.ensemble import Ensemble, check_images

    if values.builder is not None and os.getcwd() not in sys.path:
        # A console script does not look for modules there.
        sys.path.append(os.getcwd())
    if len(models) == 1 and models[0] in pretrained.names():
        members = pretrained.load_pretrained(models[0]).members
        paths = [Path(models[0])] * len(members)
    else:
        paths = loading.expand(models)
        members = loading.load_models(paths, builder=values.builder, trust=values.trust)
    outputs = [output or None for output in values.outputs or [None]]
    ensemble = Ensemble(
        members,
        outputs=outputs if len(outputs) > 1 else outputs[0],
        votes=values.votes,
    )
    check_images(ensemble, x)
    # Subclassed members do not show their classes before they are called.
    check_labels(y, ensemble.num_classes or ensemble(x[:1]).shape[-1])
    for path, member in zip(paths, members, strict=True):
        check_gradient(path, member, x[:8])
    return ensemble, [str(path) for path in paths]


@contextlib.contextmanager
def _backend_errors_explained() -> Iterator[None]:
    """Make errors of TensorFlow, JAX and numpy such that one line tells them."""
    try:
        yield
    except Exception as error:  # TensorFlow's are no `RuntimeError`
        if any(text in str(error) for text in _NO_MEMORY):
            raise RuntimeError(
                "There is too little memory. Pass a smaller --batch_size"
            ) from error
        if type(error).__module__.startswith("tensorflow."):
            raise RuntimeError(
                f"TensorFlow cannot compute the models ({program.reason(error)})"
            ) from error
        raise


def _print(document: Document) -> None:
    for name in ("clean_accuracy", "robust_accuracy"):
        value, low, high = (
            100 * document[name][key] for key in ("value", "low", "high")
        )
        label = name.replace("_", " ")
        print(f"{label:<15} {value:5.1f} %  (95 % interval: {low:.1f} to {high:.1f} %)")
    print(document["verdict"])
