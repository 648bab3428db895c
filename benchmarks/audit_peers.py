"""The attacks of an audit by advens and its peers, in the order of an audit.

Each contender takes a `Case` and returns its attacks by their names: functions from
images and labels to adversarial images, numpy arrays. It raises an `ImportError` if it
is not installed. All attack what `Case.network` computes, the logarithm of the members'
mean probability, with the true labels, within [0, 1].
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from advens.arrays import Images, Labels
from advens.attacks.apgd import apgd
from advens.attacks.compiled import gradient
from advens.attacks.found import Found
from advens.attacks.pgd import pgd
from advens.attacks.queries import Followed, Scores
from advens.attacks.square import square
from advens.attacks.threat import Objective, Threat
from advens.models.architecture import Architecture
from advens.models.ensemble import Ensemble
from advens.models.votes import mean_log_probs

# From images and labels to adversarial images.
Crafting: TypeAlias = Callable[[Images, Labels], Images]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What all contenders attack, and with which budget.

    Attributes:
        ensemble: the ensemble that is attacked.
        architectures: that of each member.
        eps: the largest norm of a perturbation.
        norm: which norm.
        num_steps: steps of each attack with gradients, which starts once.
        num_queries: queries of Square.
        batch_size: images per call.
        seed: of what is random.
    """

    ensemble: Ensemble
    architectures: Sequence[Architecture]
    eps: float
    norm: Literal["linf", "l2"] = "linf"
    num_steps: int = 100
    num_queries: int = 1000
    batch_size: int = 250
    seed: int = 0

    @functools.cached_property
    def network(self) -> keras.Model:
        """What the peers attack: a model of log(mean probability), or of logits."""
        models = self.ensemble.logits_models
        if len(models) == 1:
            return models[0]
        x = keras.Input(models[0].input_shape[1:])
        return keras.Model(x, mean_log_probs(ops.stack([m(x) for m in models])))

    def in_batches(self, function: Crafting) -> Crafting:
        """Return a function that calls `function` on one batch after another."""

        def on_all(x: Images, y: Labels) -> Images:
            starts = range(0, len(x), self.batch_size)
            batches = [slice(start, start + self.batch_size) for start in starts]
            return np.concatenate([np.asarray(function(x[b], y[b])) for b in batches])

        return on_all


def advens(case: Case) -> dict[str, Crafting]:
    """Return the attacks of advens along the ensemble gradient."""
    budget: dict[str, Any] = {"eps": case.eps, "norm": case.norm}

    def followed(objective: Objective) -> Followed:
        threat = Threat("ensemble", objective=objective)
        return Followed(gradient(case.ensemble, threat), case.batch_size)

    def crafting(
        attack: Callable[..., Found], *source: object, **options: Any
    ) -> Crafting:
        def craft(x: Images, y: Labels) -> Images:
            rng = np.random.default_rng(case.seed)
            return attack(*source, x, y, rng=rng, **budget, **options).x_adv

        return craft

    steps = {"num_steps": case.num_steps}
    return {
        "PGD": crafting(pgd, followed("cross_entropy"), **steps),
        "APGD-CE": crafting(apgd, followed("cross_entropy"), **steps),
        "APGD-DLR": crafting(apgd, followed("dlr"), **steps),
        "APGD-T": crafting(_targeted, case, followed("targeted_dlr"), **steps),
        "Square": crafting(
            square,
            Scores(case.ensemble, case.batch_size),
            num_queries=case.num_queries,
        ),
    }


def _targeted(
    case: Case, followed: Followed, x: Images, y: Labels, **options: Any
) -> Found:
    """Attack with APGD towards each other class, the most likely one first."""
    ranked = np.argsort(-case.network.predict(x, verbose=0), axis=1)
    others = ranked[ranked != y[:, None]].reshape(len(x), -1)
    found = Found(x)
    for targets in others.T:
        rows = found.resisting()
        if not len(rows):
            break
        of_target = apgd(followed, x[rows], y[rows], targets=targets[rows], **options)
        found.x_adv[rows], found.broken[rows] = of_target.x_adv, of_target.broken
    return found


def art(case: Case) -> dict[str, Crafting]:
    """Return the attacks of the Adversarial Robustness Toolbox.

    Its first step is given the size that Croce and Hein's has, 2 eps.
    """
    from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
    from art.estimators.classification import TensorFlowV2Classifier

    logging.getLogger("art").setLevel(logging.WARNING)
    classifier = TensorFlowV2Classifier(
        case.network,
        case.network.output_shape[-1],
        case.network.input_shape[1:],
        # Square needs none; those of the gradients replace it.
        loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )
    budget: dict[str, Any] = {
        "norm": np.inf if case.norm == "linf" else 2,
        "eps": case.eps,
        "batch_size": case.batch_size,
        "verbose": False,
    }
    attacks = {
        f"APGD-{name}": AutoProjectedGradientDescent(
            classifier,
            eps_step=2 * case.eps,
            max_iter=case.num_steps,
            nb_random_init=1,
            loss_type=loss,
            **budget,
        )
        for name, loss in {
            "CE": "cross_entropy",
            "DLR": "difference_logits_ratio",
        }.items()
    }
    attacks["Square"] = SquareAttack(classifier, max_iter=case.num_queries, **budget)

    def crafting(attack: Any) -> Crafting:
        def craft(x: Images, y: Labels) -> Images:
            np.random.seed(case.seed)  # noqa: NPY002, all that ART knows
            return attack.generate(x, np.eye(classifier.nb_classes)[y])

        return craft

    return {name: crafting(attack) for name, attack in attacks.items()}


def foolbox(case: Case) -> dict[str, Crafting]:
    """Return PGD of Foolbox, with its own step sizes."""
    from foolbox import TensorFlowModel, attacks

    model = TensorFlowModel(case.network, bounds=(0, 1))
    method = {"linf": attacks.LinfPGD, "l2": attacks.L2PGD}[case.norm]
    attack = method(steps=case.num_steps)

    def craft(x: Images, y: Labels) -> Images:
        tf.random.set_seed(case.seed)
        return attack.run(model, tf.constant(x), tf.constant(y), epsilon=case.eps)

    return {"PGD": case.in_batches(craft)}


def torchattacks(case: Case) -> dict[str, Crafting]:
    """Return the attacks of torchattacks, on the same networks in PyTorch.

    They follow Croce and Hein's own code line by line.
    """
    import torch
    import torchattacks

    import torch_networks

    network = torch_networks.Voting(case.ensemble.members, case.architectures)
    budget: dict[str, Any] = {
        "norm": {"linf": "Linf", "l2": "L2"}[case.norm],
        "eps": case.eps,
        "seed": case.seed,
    }
    num_classes = case.network.output_shape[-1]
    attacks = {
        "APGD-CE": torchattacks.APGD(network, steps=case.num_steps, **budget),
        "APGD-DLR": torchattacks.APGD(
            network, steps=case.num_steps, loss="dlr", **budget
        ),
        "APGD-T": torchattacks.APGDT(
            network, steps=case.num_steps, n_classes=num_classes, **budget
        ),
        "Square": torchattacks.Square(network, n_queries=case.num_queries, **budget),
    }

    def crafting(attack: Any) -> Crafting:
        def craft(x: Images, y: Labels) -> Images:
            images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
            x_adv = attack(images, torch.from_numpy(y)).detach()
            return x_adv.permute(0, 2, 3, 1).numpy()

        return case.in_batches(craft)

    return {name: crafting(attack) for name, attack in attacks.items()}


CONTENDERS: Final[dict[str, Callable[[Case], dict[str, Crafting]]]] = {
    "advens": advens,
    "ART": art,
    "torchattacks": torchattacks,
    "Foolbox": foolbox,
}
