"""The images of Figure 1: one of each class, classified correctly and then fooled."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import ops

from advens.arrays import Answers, Images, Ints, Labels
from advens.attacks.compiled import gradient
from advens.attacks.fgsm_bim import craft
from advens.attacks.threat import Attack, Threat
from advens.datasets import Dataset
from advens.strauss2017.columns import PAPER_LOSS
from advens.strauss2017.run import Run
from advens.training.members import load_ensemble


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A test image of each class, in class order, before and under an attack.

    Attributes:
        dataset: the data set that holds the images.
        indices: `(k,)` int, which test images; see `choose_examples`.
        before: `(k,)` int, the classes predicted without attack.
        x_adv: `(k, h, w, c)` float32, the adversarial images.
        after: `(k,)` int, the classes predicted for `x_adv`.
        attack: its settings.
        deviations: see `Run.deviations`.
    """

    dataset: Dataset
    indices: Ints
    before: Labels
    x_adv: Images
    after: Labels
    attack: Attack
    deviations: Sequence[str] = ()

    @property
    def shortfalls(self) -> list[str]:
        """Which classes have no image that is classified correctly and then fooled."""
        names = self.dataset.class_names
        labels = self.dataset.y_test[self.indices]
        shortfalls = [
            f"no test image of {name}"
            for label, name in enumerate(names)
            if label not in labels
        ]
        for label, before, after in zip(labels, self.before, self.after, strict=True):
            if before != label:
                shortfalls.append(f"{names[label]} is misclassified without attack")
            elif after == label:
                shortfalls.append(f"{names[label]} is not fooled")
        return shortfalls


def figure1_examples(run: Run) -> Examples:
    """Train or load the first network of Rand. Ini. and attack it by BIM."""
    members = run.members("rand_ini", 1)
    run.train("rand_ini", members)
    labels = run.labels["bim_grad1"]
    threat = Threat("member", 0, labels, loss=PAPER_LOSS)
    by_threat = run.attack("rand_ini", members, {None: [], threat: run.attacks})
    (bim,) = (attack for attack in run.attacks if attack.name == "BIM")
    right = by_threat[None]["none"].ensemble
    right_attacked = by_threat[threat]["BIM"].ensemble
    indices = choose_examples(run.dataset.y_test, right, right_attacked)
    network = load_ensemble(members, run.store)
    x, y = run.dataset.x_test[indices], run.dataset.y_test[indices]
    [(x_adv, _)] = craft(gradient(network, threat), x, y, [bim])
    return Examples(
        dataset=run.dataset,
        indices=indices,
        before=network.predict_on_batch(x).argmax(axis=-1),
        x_adv=ops.convert_to_numpy(x_adv),
        after=network.predict_on_batch(x_adv).argmax(axis=-1),
        attack=bim,
        deviations=run.deviations(),
    )


def choose_examples(y: Labels, right: Answers, right_attacked: Answers) -> Ints:
    """Return each class's first image that is classified correctly and then fooled.

    For a class without such an image, return the first that is classified correctly,
    or else the first that is wrong under attack, or else the first.

    Args:
        y: `(n,)` int labels.
        right: `(n,)` bool, whether each image is classified correctly.
        right_attacked: `(n,)` bool, the same under attack.

    Returns:
        `(k,)` int: indices, in the order of the classes that occur in `y`.
    """
    rank = 2 * right.astype(int) + ~right_attacked
    return np.array(
        [np.argmax(np.where(y == label, rank, -1)) for label in np.unique(y)]
    )
