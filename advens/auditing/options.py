"""The options of `advens-audit`: what they mean, and which values are possible."""

import fractions
import functools
from typing import Any, Final, get_args

from absl import flags

from advens import datasets, program
from advens.attacks.balls import Norm
from advens.checks import check_count, check_positive

_NORMS: Final = get_args(Norm)
# As `models.votes.Votes`, which needs Keras.
_VOTES: Final = ("mean_probability", "mean_logit", "majority")
# Arguments of `audit` that are integers >= 1.
COUNTS: Final = ("batch_size", "num_steps", "num_queries", "num_draws", "num_probes")


class _Fraction(flags.ArgumentParser[float]):
    syntactic_help = "a number or a fraction, such as 8/255"

    def parse(self, argument: str) -> float:
        try:
            return float(fractions.Fraction(argument))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"must be {self.syntactic_help}") from error


def parse(argv: list[str]) -> tuple[list[str], flags.FlagValues]:
    """Return the arguments of a command line, and the values of its options.

    The options are none of `flags.FLAGS`, in which a user's program may have its own.

    Args:
        argv: the command line; the command comes first.

    Raises:
        ValueError: if an option is missing, unknown or not one of its possible values.
    """
    values = _options()
    try:
        arguments = values(argv)[1:]
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if not values.help:
        if not arguments:
            raise ValueError(
                "The arguments must name at least one model, such as models/*.keras. "
                "Received: none. --help lists the options"
            )
        _check(values)
    return arguments, values


def _options() -> flags.FlagValues:
    values = flags.FlagValues()

    def of(define: Any) -> Any:
        return functools.partial(define, flag_values=values)

    string, boolean = of(flags.DEFINE_string), of(flags.DEFINE_boolean)
    integer, number = of(flags.DEFINE_integer), of(flags.DEFINE_float)
    enum = of(flags.DEFINE_enum)
    string(
        "data",
        None,
        "Images and labels: an .npz file with arrays x and y, or x_test and y_test. "
        "Images are floats in [0, 1]; labels are integers from 0.",
    )
    number("scale", None, "What the images of --data are divided by, for example 255.")
    string(
        "dataset",
        None,
        f"Test images to take in place of --data: {datasets.CHOICES}. They are scaled "
        "to [0, 1].",
    )
    string(
        "data_dir",
        None,
        "Directory with mnist.npz and cifar10.npz; default: the environment variable "
        f"{datasets.DATA_DIR_VARIABLE}. Without it, Keras downloads them. For "
        "tfds:NAME, the directory of TensorFlow Datasets; default: its own.",
    )
    integer("images", None, "Audit the first so many images; default: all.")
    of(flags.DEFINE)(
        _Fraction(),
        "eps",
        None,
        "Largest change of an image in the norm, where pixels lie in [0, 1].",
    )
    enum("norm", _NORMS[0], _NORMS, "The norm.")
    enum("votes", _VOTES[0], _VOTES, "How the models vote.")
    of(flags.DEFINE_list)(
        "outputs",
        None,
        "What models return whose last layer does not show it, logits or probs: one "
        "for all, or one per model, with nothing for those that show it (logits,,).",
    )
    string(
        "builder",
        None,
        "module:function; it returns a model, and the arguments are files of weights.",
    )
    boolean("trust", False, "Load files that hold Python code, such as Lambda layers.")
    integer("seed", 0, "Seed of all that is random.")
    integer("batch_size", 250, "Images per call of the models.")
    integer("num_steps", 100, "Steps of each gradient attack.")
    integer("num_queries", 5000, "Queries of the attack without gradients, per image.")
    integer("num_draws", 1, "Calls of random models for one gradient.")
    integer("num_probes", 200, "Images for the sanity panel, the curves and the why.")
    number("time_budget", None, "Minutes that the audit may take; default: no limit.")
    string("out", "audit", "Directory of the files that are written.")
    string(
        "work_dir",
        None,
        "Directory of what is done, from which an audit is resumed; default: work, in "
        "--out.",
    )
    string(
        "cluster",
        None,
        "A Dask cluster that attacks: its scheduler's address or file, or local; its "
        "workers must see --work_dir.",
    )
    string("compare", None, "The audit.json of other models on the same images.")
    boolean("help", False, "Print this help.", short_name="h")
    program.define_flags(values)
    for name in ("quiet", "verbose"):
        flags.declare_key_flag(name, values)
    return values


def described(values: flags.FlagValues) -> str:
    """Return the help on all options."""
    return values.module_help(__name__).replace(__name__, "options")


def _check(values: flags.FlagValues) -> None:
    if (values.data is None) == (values.dataset is None):
        raise ValueError(
            "Either --data=FILE.npz or --dataset=NAME must be given. Received: "
            f"{'none' if values.data is None else 'both'}"
        )
    if values.dataset is not None and not datasets.is_name(values.dataset):
        raise ValueError(
            f"`dataset` must be {datasets.CHOICES}. Received: "
            f"dataset={values.dataset!r}"
        )
    if values.scale is not None and values.dataset is not None:
        raise ValueError("--scale is for --data. The images of --dataset are in [0, 1]")
    if values.eps is None:
        raise ValueError("--eps must be given, for example --eps=8/255")
    check_positive("eps", values.eps)
    for name in COUNTS:
        check_count(name, getattr(values, name))
    if values.images is not None:
        check_count("images", values.images)
    if values.time_budget is not None:
        check_positive("time_budget", values.time_budget)
    if not 0 <= values.seed < 2**32:
        raise ValueError(
            f"`seed` must be >= 0 and below 2**32. Received: seed={values.seed}"
        )
