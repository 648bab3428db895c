"""The flags of the scripts that train and attack; the defaults are the paper's values.

A default of None stands for the paper's value for the data set.
"""

import sys
from typing import Any, Final

from absl import flags

FLAGS: Final = flags.FLAGS

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
flags.DEFINE_integer(
    "n_jobs",
    None,
    "Processes that train, each with its share of the cores; default: one a core on a "
    "CPU, one on a GPU or Keras's JAX backend.",
)
flags.DEFINE_integer(
    "stack",
    None,
    "Members that train in one program, on Keras's JAX backend; default: what fits "
    "into a GPU, one on a CPU.",
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Precision of the training; attacks are always float32.",
)


def values(*names: str) -> dict[str, Any]:
    """Return the values of some flags by their names."""
    return {name: FLAGS[name].value for name in names}


def all_values() -> dict[str, Any]:
    """Return the values of all flags of the scripts, and of no library's."""
    modules = FLAGS.flags_by_module_dict()
    ours = (m for m in modules if m.startswith("reproduce") or m == sys.argv[0])
    return {flag.name: flag.value for m in ours for flag in modules[m]}
