"""Images per second under FGSM and BIM: advens beside its peers, in one process.

All contenders attack the same networks and images, batch after batch, in turns, and the
ratio of two speeds is taken pair by pair. With `--cells`, the benchmark measures
instead what the attacks on one method of Table 2 cost, and compares this with the
passes through the members that no implementation can avoid.
"""

import functools
import tempfile
from typing import TYPE_CHECKING

import numpy as np
from absl import app, flags

import common
from advens.arrays import Floats

if TYPE_CHECKING:
    from contest import Result

_DATASET = flags.DEFINE_enum(
    "dataset",
    "mnist",
    ["digits", "mnist", "cifar10"],
    "The images and the budgets. The network is Table 3 for cifar10, else Table 1.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Directory with mnist.npz and cifar10.npz; default: ADVENS_DATA_DIR. Without it, "
    "Keras downloads them.",
)
_NUM_MEMBERS = flags.DEFINE_integer("num_members", 10, "Members of the ensemble.", 1)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 6000, "Images to train the members on, for one epoch.", 1
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 1000, "Images to attack.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Images per call.", 1)
_BFLOAT16 = flags.DEFINE_bool("bfloat16", True, "Whether to measure bfloat16 too.")
_CELLS = flags.DEFINE_bool(
    "cells", False, "Measure the attacks on one method of Table 2 instead."
)


def main() -> None:
    """Train for one epoch, then measure and publish."""
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        raise app.UsageError(
            f"The Keras backend must be 'tensorflow'. Received: {backend!r}"
        )
    import cells
    import contest
    import peers
    from advens import datasets
    from advens.attacks.threat import Threat
    from advens.models.ensemble import Ensemble
    from advens.storage.store import Store
    from advens.strauss2017 import networks
    from advens.strauss2017.run import Run
    from advens.strauss2017.settings import Settings, paper_attacks
    from advens.training.members import fit_members, load_ensemble

    data = datasets.load(_DATASET.value, data_dir=_DATA_DIR.value)
    data = data.subset(_TRAIN_IMAGES.value, _NUM_IMAGES.value)
    x, y = data.x_test, data.y_test
    num_members = _NUM_MEMBERS.value
    attacks = paper_attacks(data.name)
    fgsm, bim = attacks
    with tempfile.TemporaryDirectory() as root:
        settings = Settings.for_dataset(data.name, epochs=1)
        run = Run(data, settings, attacks, Store(root), num_members=num_members)
        members = run.members("rand_ini")
        fit_members(members, data, run.store)
        ensemble = load_ensemble(members, run.store)

    make_case = functools.partial(
        peers.Case,
        architecture=networks.base(data.name),
        batch_size=_BATCH_SIZE.value,
    )
    # The loss of the peers. With it, all contenders compute the same images.
    grad1 = Threat("member", 0, loss="logits")
    grad2 = Threat("mean_member", loss="logits")
    own_gradient = Threat("ensemble", loss="logits")
    title = (
        f"{data.name}, {num_members} members, {len(x)} images, "
        f"batch {_BATCH_SIZE.value}"
    )
    if _CELLS.value:
        needed = cells.passes(num_members, attacks)
        member_case = make_case(ensemble, threat=grad1, attack=fgsm)
        _publish_cells(title, needed, cells.measure(member_case, x, y, attacks))
        return
    single = Ensemble([ensemble[0]])
    cases = {
        "FGSM, one member": make_case(single, threat=grad1, attack=fgsm),
        "BIM, one member": make_case(single, threat=grad1, attack=bim),
        "BIM, ensemble, Grad. 1": make_case(ensemble, threat=grad1, attack=bim),
        "BIM, ensemble, Grad. 2": make_case(ensemble, threat=grad2, attack=bim),
        "BIM, ensemble, its gradient": make_case(
            ensemble, threat=own_gradient, attack=bim
        ),
    }
    missing: dict[str, str] = {}
    results = {
        name: contest.contend(case, x, y, missing, _BFLOAT16.value)
        for name, case in cases.items()
    }
    _publish_contest(title, results, missing)


def _publish_contest(
    title: str, results: dict[str, dict[str, "Result"]], missing: dict[str, str]
) -> None:
    lines = []
    for case, contenders in results.items():
        lines.append([f"[bold]{case}", *[""] * 8])
        for name, result in contenders.items():
            ratios = np.asarray(result["ratios"])
            if "changed_signs" in result:
                name += f" *, {result['changed_signs']:.2%}"
                ratios = 1 / ratios
            lines.append(
                [
                    name,
                    *common.spread(np.asarray(result["images_per_second"]), 0),
                    *common.spread(ratios),
                    f"{result['robust_accuracy']:.4f}",
                    f"{result['identical_pixels']:.4f}",
                ]
            )
    notes = [f"not installed: {name} ({why})" for name, why in missing.items()]
    if _BFLOAT16.value:
        notes.append(
            "*: the ratio is bfloat16 over float32; the percentage is the share of the "
            "first gradient's signs that change"
        )
    else:
        notes.append("left out: bfloat16 (--nobfloat16)")
    common.publish(
        "\n".join([title, *notes]),
        [
            *("images/s", "lowest", "median", "highest"),
            *("advens over it: lowest", "median", "highest"),
            *("robust acc.", "same pixels"),
        ],
        lines,
        contenders=results,
        missing=missing,
    )


def _publish_cells(
    title: str, passes: dict[str, int], seconds: dict[str, Floats]
) -> None:
    needed = np.sum([count * seconds[name] for name, count in passes.items()], axis=0)
    ratios = seconds["cells"] / needed
    lines = [
        [name, str(passes.get(name, 1)), *common.spread(durations, 3)]
        for name, durations in seconds.items()
    ]
    common.publish(
        f"{title}: the attacks on one method of Table 2",
        ["seconds", "times", "lowest", "median", "highest"],
        [
            *lines,
            ["all passes that are needed", "", *common.spread(needed, 3)],
            ["cells over passes needed", "", *common.spread(ratios, 3)],
        ],
        passes=passes,
        seconds=seconds,
        ratios=ratios,
    )


if __name__ == "__main__":
    common.run(main)
