"""The flags of the scripts that train and attack, and the run that they describe.

Their defaults are the paper's values. A default of None stands for the paper's value
for the data set, or for what is said with the flag.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

from absl import flags

import script
from advens import datasets
from advens.attacks.threat import Attack
from advens.models.architecture import Logits
from advens.strauss2017 import constants
from advens.strauss2017.settings import SEED, Settings, paper_attacks
from advens.training.recipe import Precision

if TYPE_CHECKING:
    from advens.strauss2017.run import Run

FLAGS: Final = flags.FLAGS

flags.DEFINE_enum("dataset", datasets.NAMES[0], datasets.NAMES, "The data set.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Directory with mnist.npz and cifar10.npz; default: the environment variable "
    f"{datasets.DATA_DIR_VARIABLE}. Without it, keras downloads them.",
)
flags.DEFINE_string(
    "work_dir",
    "advens-work",
    "Directory of trained members and outcomes, from which a run is resumed.",
)
flags.DEFINE_string("out_dir", "results", "Directory of the tables.")
flags.DEFINE_integer(
    "num_members", constants.NUM_MEMBERS, "Number of classifiers in an ensemble."
)
flags.DEFINE_integer("epochs", None, "Epochs of training.")
flags.DEFINE_integer(
    "train_images", None, "Train on the first so many images; default: all."
)
flags.DEFINE_integer(
    "test_images", None, "Attack the first so many test images; default: all."
)
flags.DEFINE_integer("batch_size", Settings.batch_size, "Images per training step.")
flags.DEFINE_string("optimizer", Settings.optimizer, "Name of a Keras optimizer.")
flags.DEFINE_float("learning_rate", Settings.learning_rate, "Learning rate.")
flags.DEFINE_float("momentum", Settings.momentum, "Momentum of the optimizer.")
flags.DEFINE_float(
    "decay", Settings.decay, "Learning rate is learning_rate / (1 + decay * step)."
)
flags.DEFINE_float(
    "noise_std", None, "Standard deviation of Gauss Noise, in units of [0, 1] pixels."
)
flags.DEFINE_enum(
    "logits", Settings.logits, get_args(Logits), "What stands under the softmax."
)
flags.DEFINE_boolean("box", Attack.box, "Clip adversarial images to [0, 1].")
flags.DEFINE_float("fgsm_eps", None, "Largest change of a pixel by FGSM.")
flags.DEFINE_float("bim_eps", None, "Largest change of a pixel by BIM.")
flags.DEFINE_float("bim_step_size", None, "Change of a pixel in one step of BIM.")
flags.DEFINE_integer("bim_num_steps", None, "Number of steps of BIM.")
flags.DEFINE_integer("seed", SEED, "Run seed, from which each member's seed is drawn.")
flags.DEFINE_integer(
    "n_jobs",
    None,
    "Processes that train, each with its share of the cores; default: one per core on "
    "a CPU, one on a GPU or with Keras's JAX backend.",
)
flags.DEFINE_integer(
    "stack",
    None,
    "Members that train together in one program, with Keras's JAX backend; default: as "
    "many as fit into a GPU, one on a CPU.",
)
flags.DEFINE_enum(
    "precision",
    Settings.precision,
    get_args(Precision),
    "Precision of the training; attacks are always float32.",
)

# The values of flags, by name: whatever the parser of a flag returns.
Values: TypeAlias = dict[str, Any]

# A flag that sets an attribute of `Settings` is called like the attribute.
_SETTINGS: Final = [field.name for field in dataclasses.fields(Settings)]
_MODULES: Final = {path.stem for path in Path(__file__).parent.glob("*.py")}


def all_values() -> Values:
    """Return the values of all flags of the scripts, without those of any library."""
    modules = FLAGS.flags_by_module_dict()
    # The script that was started is known by its path.
    ours = [name for name in modules if name in _MODULES or name == sys.argv[0]]
    return {flag.name: flag.value for name in ours for flag in modules[name]}


def make_run(**overrides: object) -> "Run":
    """Return the run that the flags describe. Bad values are found here.

    Args:
        **overrides: values that take the place of the flags' values, by name.
    """
    from advens import process
    from advens.progress import Bars
    from advens.storage.store import Store
    from advens.strauss2017.run import Run

    values = all_values() | overrides

    def chosen(*names: str) -> Values:
        return {name: values[name] for name in names if values.get(name) is not None}

    settings = Settings.for_dataset(**chosen(*_SETTINGS))
    attacks = paper_attacks(
        **chosen("dataset", "box", "fgsm_eps", "bim_eps"),
        **chosen("bim_step_size", "bim_num_steps"),
    )
    script.check_writable("out_dir", Path(values["out_dir"]))
    dataset = datasets.load(values["dataset"], data_dir=values["data_dir"])
    process.keep_memory()
    return Run(
        dataset=dataset.subset(values["train_images"], values["test_images"]),
        settings=settings,
        attacks=attacks,
        store=Store(values["work_dir"]),
        bars=Bars(show=True),
        **chosen("num_members", "seed", "n_jobs", "stack"),
    )
