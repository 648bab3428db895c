"""What the scripts share: flags, the run that they describe, errors in one line."""

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from absl import app, flags

if TYPE_CHECKING:
    from advens.experiments import Run
    from advens.tables import Cell

FLAGS: Final = flags.FLAGS

# Defaults of None are the paper's values for the data set.
flags.DEFINE_enum("dataset", "digits", ["digits", "mnist", "cifar10"], "The data set.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Directory with mnist.npz and cifar10.npz; default: ADVENS_DATA_DIR. Without it, "
    "keras downloads them.",
)
flags.DEFINE_string(
    "work_dir",
    "advens-work",
    "Directory of trained members and outcomes, for resuming.",
)
flags.DEFINE_string("out_dir", "results", "Directory of the tables.")
flags.DEFINE_integer("num_members", 10, "Classifiers in an ensemble.")
flags.DEFINE_integer("epochs", None, "Epochs of training.")
flags.DEFINE_integer("train_images", None, "Train on the first so many images.")
flags.DEFINE_integer("test_images", None, "Attack the first so many test images.")
flags.DEFINE_integer("batch_size", 64, "Images in a training step.")
flags.DEFINE_string("optimizer", "adam", "Name of a Keras optimizer.")
flags.DEFINE_float("learning_rate", 1e-3, "Constant learning rate.")
flags.DEFINE_float(
    "noise_std", None, "Standard deviation of Gauss Noise, in units of [0, 1] pixels."
)
flags.DEFINE_enum(
    "logits", "relu", ["relu", "linear", "dense"], "What stands under the softmax."
)
flags.DEFINE_boolean("box", False, "Clip adversarial images to [0, 1].")
flags.DEFINE_float("fgsm_eps", None, "Largest change of a pixel by FGSM.")
flags.DEFINE_float("bim_eps", None, "Largest change of a pixel by BIM.")
flags.DEFINE_float("bim_step_size", None, "Change of a pixel in one step of BIM.")
flags.DEFINE_integer("bim_num_steps", None, "Steps of BIM.")
flags.DEFINE_integer("seed", 0, "Run seed, from which each member's seed is drawn.")
flags.DEFINE_integer("n_jobs", 1, "Processes that train, each with its share of cores.")
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Precision of the training; attacks are always float32.",
)


def main(reproduce: Callable[[], None]) -> None:
    """Parse the flags and call `reproduce`; bad input is one line and exit code 1."""
    # Only this level silences TensorFlow's notes on the devices that it has not found.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = FLAGS(argv)
        except flags.Error as error:
            _fail(error)
        if len(rest) > 1:
            _fail(f"arguments must be flags, as --name=value. Received: {rest[1:]}")
        return rest

    def guarded(_: list[str]) -> None:
        try:
            reproduce()
        except (OSError, ValueError) as error:
            _fail(error)
        except KeyboardInterrupt:
            _fail("interrupted; the same command goes on from here")

    app.run(guarded, flags_parser=parse)


def make_run(*more: str) -> "Run":
    """Return the run that the flags describe; all that can be wrong is found here.

    Args:
        more: flags of the script's own that are fields of `recipes.Settings`.
    """
    from advens import datasets, experiments, recipes, store
    from advens.progress import Bars

    settings = recipes.Settings(
        **_values(
            *("dataset", "epochs", "batch_size", "optimizer", "learning_rate"),
            *("precision", "noise_std", "logits", *more),
        )
    )
    attacks = experiments.paper_attacks(
        **_values("dataset", "box", "fgsm_eps", "bim_eps"),
        **_values("bim_step_size", "bim_num_steps"),
    )
    _check_writable(Path(FLAGS.out_dir))
    dataset = datasets.load(FLAGS.dataset, data_dir=FLAGS.data_dir)
    return experiments.Run(
        dataset=dataset.subset(FLAGS.train_images, FLAGS.test_images),
        settings=settings,
        attacks=attacks,
        store=store.Store(FLAGS.work_dir),
        **_values("num_members", "seed", "n_jobs"),
        bars=Bars(show=True),
    )


def choices(flag: str, values: Sequence[str], known: Sequence[str]) -> list[str]:
    """Check the values of a list flag; the order and doubles do not count."""
    if not values or set(values) - set(known):
        raise ValueError(
            f"`{flag}` must be some of {','.join(known)}. "
            f"Received: --{flag}={','.join(values)}"
        )
    return [value for value in known if value in values]


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
    from rich.console import Console

    from advens import tables
    from advens.manifest import manifest

    deviations = run.deviations()
    record = manifest(
        configuration={flag.name: flag.value for flag in _own_flags()},
        differs_from_the_paper=deviations,
        seeds={"run": run.seed, "members": run.member_seeds},
        data={"name": run.dataset.name, "sha256": run.dataset.checksums},
        seconds_per_stage=run.seconds,
    )
    stem = f"{name}_{run.dataset.name}"
    paths = tables.write(cells, record, out_dir=Path(FLAGS.out_dir), name=stem)
    title = f"{name.capitalize()} on {run.dataset.name}"
    if deviations:
        title += f" ({', '.join(deviations)})"
    # Wide enough for the table also where the output is no terminal.
    console = Console(width=max(120, Console().width))
    console.print(tables.render(cells, title=title))
    for column, meaning in columns.items():
        console.print(f"{column}: {meaning}", highlight=False)
    console.print("Accuracies; in the second line of a cell the paper's value, if any.")
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


def _values(*names: str) -> dict[str, Any]:
    return {name: FLAGS[name].value for name in names}


def _own_flags() -> list[flags.Flag]:
    """Return the flags that the scripts define, and not those of absl."""
    found = FLAGS.flags_by_module_dict()
    return [
        flag
        for module, defined in sorted(found.items())
        if module == sys.argv[0] or module.startswith("reproduce")
        for flag in defined
    ]


def _check_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"`out_dir` must be a directory that can be written ({error.strerror}). "
            f"Received: out_dir={str(directory)!r}"
        ) from error


def _fail(error: object) -> None:
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(1)
