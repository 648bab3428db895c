"""The flags of the scripts that train and attack.

Their defaults are the paper's values or, where the paper is silent, those of a reading.
A default of None stands for such a value, or for what is said with the flag.
"""

from typing import Final, get_args

from absl import flags

from advens import datasets
from advens.attacks.threat import LabelMode
from advens.models.architecture import Logits
from advens.strauss2017 import constants
from advens.strauss2017.readings import DEFAULT, LABELS, READINGS
from advens.strauss2017.settings import SEED, Settings
from advens.training.recipe import Precision

FLAGS: Final = flags.FLAGS

flags.DEFINE_string(
    "dataset",
    datasets.NAMES[0],
    f"The data set: {datasets.CHOICES}. The file holds x_train, y_train, x_test and "
    "y_test.",
)
flags.register_validator("dataset", datasets.is_name, f"must be {datasets.CHOICES}")
flags.DEFINE_string(
    "data_dir",
    None,
    "Directory with mnist.npz and cifar10.npz; default: the environment variable "
    f"{datasets.DATA_DIR_VARIABLE}. Without it, Keras downloads them. For tfds:NAME, "
    "the directory of TensorFlow Datasets; default: its own.",
)
flags.DEFINE_string(
    "work_dir",
    "advens-work",
    "Directory of trained members and outcomes, from which a run is resumed.",
)
flags.DEFINE_string(
    "import", None, "Directory of exported outcomes, taken into work_dir at the start."
)
flags.DEFINE_string("out_dir", "results", "Directory of the tables.")
flags.DEFINE_enum(
    "reading",
    DEFAULT,
    list(READINGS),
    "The answers to the paper's open points, which single flags override. Those of "
    "another reading than the default are written to a directory of its name in "
    "out_dir and figures_dir, unless these are given.",
)
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
flags.DEFINE_integer("batch_size", None, "Images per training step.")
flags.DEFINE_string("optimizer", None, "Name of a Keras optimizer.")
flags.DEFINE_float("learning_rate", None, "Learning rate.")
flags.DEFINE_float("momentum", None, "Momentum of the optimizer.")
flags.DEFINE_float(
    "decay", None, "Learning rate is learning_rate / (1 + decay * step)."
)
flags.DEFINE_float(
    "noise_std", None, "Standard deviation of Gauss Noise, in units of [0, 1] pixels."
)
flags.DEFINE_string(
    "network",
    None,
    "A network of your own in place of the paper's, as module:function. The function "
    "is called with the shape of an image and the number of classes, and returns a "
    "Keras model.",
)
flags.DEFINE_enum("logits", None, get_args(Logits), "What stands under the softmax.")
flags.DEFINE_boolean("box", None, "Clip adversarial images to [0, 1].")
for _name in LABELS:
    _attack, _gradient = _name.split("_")
    flags.DEFINE_enum(
        f"{_name}_labels",
        None,
        get_args(LabelMode),
        f"The labels of {_attack.upper()} through {_gradient.replace('grad', 'Grad. ')}"
        " in the paper's columns.",
    )
flags.DEFINE_float("fgsm_eps", None, "Largest change of a pixel by FGSM.", 0)
flags.DEFINE_float("bim_eps", None, "Largest change of a pixel by BIM.", 0)
flags.DEFINE_float("bim_step_size", None, "Change of a pixel in one step of BIM.", 0)
flags.DEFINE_integer("bim_num_steps", None, "Number of steps of BIM.", 1)
flags.DEFINE_integer("seed", SEED, "Run seed, from which each member's seed is drawn.")
flags.DEFINE_integer(
    "n_jobs",
    None,
    "Processes that train, each with its share of the cores; default: one per core on "
    "a CPU, one on a GPU or with Keras's JAX backend.",
)
flags.DEFINE_string(
    "cluster",
    None,
    "A Dask cluster that trains and attacks: its scheduler's address or file, or "
    "'local' for one worker per core. Its workers share work_dir.",
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
