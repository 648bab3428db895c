"""Images a second under FGSM and BIM: advens beside its peers, in one process.

All contenders attack the same networks and images, batch after batch, in turns; the
ratio of two is taken pair by pair. With `--cells`, what the attacks on one method of
Table 2 cost beside the passes through members that they cannot do without.
"""

import functools
import tempfile
from typing import Any

import common
from absl import app, flags

_DATASET = flags.DEFINE_enum(
    "dataset",
    "mnist",
    ["digits", "mnist", "cifar10"],
    "Images and budgets; the network is Table 1, for cifar10 Table 3.",
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where mnist.npz, cifar10.npz are.")
_NUM_MEMBERS = flags.DEFINE_integer("num_members", 10, "Members of the ensemble.", 1)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", 6000, "Images of one epoch.", 1)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 1000, "Images to attack.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Images at once.", 1)
_BFLOAT16 = flags.DEFINE_bool("bfloat16", True, "Whether bfloat16 is measured, too.")
_CELLS = flags.DEFINE_bool("cells", False, "Measure the cells of Table 2 instead.")


def main() -> None:
    """Train for one epoch, then measure and print."""
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        raise app.UsageError(
            f"The Keras backend must be 'tensorflow'. Received: {backend!r}"
        )
    import cells
    import peers

    from advens import datasets, experiments, models, training
    from advens.attacks import paper_attacks
    from advens.ensemble import Ensemble
    from advens.evaluation import Threat
    from advens.recipes import Settings
    from advens.store import Store

    data = datasets.load(_DATASET.value, data_dir=_DATA_DIR.value)
    data = data.subset(_TRAIN_IMAGES.value, _NUM_IMAGES.value)
    x, y = data.x_test, data.y_test
    settings, count = Settings(data.name, epochs=1), _NUM_MEMBERS.value
    fgsm, bim = budgets = paper_attacks(data.name)
    with tempfile.TemporaryDirectory() as root:
        run = experiments.Run(data, settings, budgets, Store(root), count)
        members = run.members("rand_ini")
        training.fit_members(members, data, run.store)
        ensemble = training.load_ensemble(members, run.store)

    case = functools.partial(
        peers.Case,
        architecture=models.base(data.name),
        batch_size=_BATCH_SIZE.value,
    )
    # The loss that the peers have, for the same images.
    member = Threat("member", 0, loss="logits")
    title = f"{data.name}, {count} members, {len(x)} images, batch {_BATCH_SIZE.value}"
    if _CELLS.value:
        one = case(ensemble, threat=member, attack=fgsm)
        needed = cells.passes(count, budgets)
        _publish_cells(title, needed, cells.measure(one, x, y, budgets))
        return
    single, grad2, true = (
        Ensemble([ensemble[0]]),
        Threat("mean_member", loss="logits"),
        Threat("ensemble", loss="logits"),
    )
    cases = {
        "FGSM, one member": case(single, threat=member, attack=fgsm),
        "BIM, one member": case(single, threat=member, attack=bim),
        "BIM, ensemble, Grad. 1": case(ensemble, threat=member, attack=bim),
        "BIM, ensemble, Grad. 2": case(ensemble, threat=grad2, attack=bim),
        "BIM, ensemble, its gradient": case(ensemble, threat=true, attack=bim),
    }
    missing: dict[str, str] = {}
    found = {
        name: peers.contend(c, x, y, missing, _BFLOAT16.value)
        for name, c in cases.items()
    }
    _publish_contest(title, found, missing)


def _publish_contest(
    title: str, found: dict[str, dict[str, dict[str, Any]]], missing: dict[str, str]
) -> None:
    rows = []
    for name, results in found.items():
        rows.append([f"[bold]{name}", *[""] * 8])
        for contender, result in results.items():
            ratios = result["ratios"]
            if "changed_signs" in result:
                contender += f" *, {result['changed_signs']:.2%}"
                ratios = 1 / ratios
            rows.append(
                [
                    contender,
                    *common.spread(result["images_per_second"], 0),
                    *common.spread(ratios),
                    f"{result['robust_accuracy']:.4f}",
                    f"{result['identical_pixels']:.4f}",
                ]
            )
    notes = [f"not installed: {name} ({why})" for name, why in missing.items()]
    if _BFLOAT16.value:
        notes.append("*: bfloat16/float32; of the first gradient's signs, so many turn")
    else:
        notes.append("left out: bfloat16 (--nobfloat16)")
    common.publish(
        "\n".join([title, *notes]),
        [
            *("images/s", "lowest", "median", "highest"),
            *("advens/it: l.", "m.", "h.", "robust acc.", "same pixels"),
        ],
        rows,
        contenders=found,
        missing=missing,
    )


def _publish_cells(title: str, passes: dict[str, int], seconds: dict[str, Any]) -> None:
    needed = sum(passes[name] * seconds[name] for name in passes)
    ratios = seconds["cells"] / needed
    common.publish(
        f"{title}: the attacks on one method of Table 2",
        ["seconds", "times", "lowest", "median", "highest"],
        [
            *(
                [name, str(passes.get(name, 1)), *common.spread(took, 3)]
                for name, took in seconds.items()
            ),
            ["passes needed, in all", "", *common.spread(needed, 3)],
            ["cells over passes needed", "", *common.spread(ratios, 3)],
        ],
        passes=passes,
        seconds=seconds,
        ratios=ratios,
    )


if __name__ == "__main__":
    common.run(main)
