"""One attack, by advens, by hand and by its peers.

Each contender takes a `Case` and returns a function from images and labels to
adversarial images, all of them numpy arrays. It returns None if it cannot follow the
gradient of the case, and raises an `ImportError` if it is not installed. All contenders
step along the sign of the gradient of a loss that is computed from logits with the true
labels, and none clips to [0, 1].
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from advens.arrays import Images, Labels
from advens.attacks.compiled import CompiledGradient
from advens.attacks.fgsm_bim import craft
from advens.attacks.gradients import Gradient, uncompiled_gradient
from advens.attacks.threat import Attack, Compute, Threat
from advens.models.architecture import Architecture
from advens.models.ensemble import Ensemble
from advens.models.logits import logits_model
from advens.models.votes import mean_log_probs

# From images and labels to adversarial images.
Crafting: TypeAlias = Callable[[Images, Labels], Images]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What all contenders compute.

    Attributes:
        ensemble: the ensemble that is attacked.
        architecture: the architecture of each member.
        threat: the gradient, with the true labels.
        attack: the settings of the attack, without a box.
        batch_size: images per call.
    """

    ensemble: Ensemble
    architecture: Architecture
    threat: Threat
    attack: Attack
    batch_size: int

    @property
    def members(self) -> list[keras.Model]:
        """The members whose gradient is followed."""
        index = self.threat.index
        return list(self.ensemble.members if index is None else [self.ensemble[index]])

    @functools.cached_property
    def network(self) -> keras.Model:
        """What the peers attack: a model of logits, or of log probabilities.

        For the gradient of the ensemble, its outputs are the logarithm of the members'
        mean probability. For Grad. 2 they are the mean of the members' logarithms, to
        which the loss `mean_loss` belongs.
        """
        if self.threat.gradient == "member":
            return logits_model(self.members[0])
        x = keras.Input(self.members[0].input_shape[1:])
        logits = ops.stack([logits_model(member)(x) for member in self.members])
        if self.threat.gradient == "ensemble":
            return keras.Model(x, mean_log_probs(logits))
        return keras.Model(x, ops.mean(ops.log_softmax(logits), axis=0))

    @property
    def loss(self) -> Callable[..., tf.Tensor] | None:
        """The loss that a peer must be given; None for its own cross-entropy."""
        return mean_loss if self.threat.gradient == "mean_member" else None

    def in_batches(self, function: Callable[..., object]) -> Crafting:
        """Return a function that calls `function` on one batch after another."""

        def on_all(x: Images, y: Labels) -> Images:
            starts = range(0, len(x), self.batch_size)
            batches = [slice(start, start + self.batch_size) for start in starts]
            return np.concatenate([np.asarray(function(x[b], y[b])) for b in batches])

        return on_all


def mean_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the mean of the members' losses, `(n,)`.

    No cross-entropy computes it, as the exponentials of `logits` do not sum to 1.

    Args:
        labels: `(n,)` int.
        logits: `(n, num_classes)`, the means of the members' log probabilities.
    """
    return -tf.gather(logits, labels, batch_dims=1)


def advens_gradient(case: Case, compute: Compute) -> Gradient:
    """Return the gradient of the case as advens computes it."""
    return uncompiled_gradient(
        case.ensemble, dataclasses.replace(case.threat, compute=compute)
    )


def advens(case: Case, compute: Compute = "float32") -> Crafting:
    """Return the attack that a user of advens would write."""
    threat = dataclasses.replace(case.threat, compute=compute)
    followed = CompiledGradient(case.ensemble, threat)
    return case.in_batches(lambda x, y: craft(followed, x, y, [case.attack])[0].x_adv)


def tape_gradient(case: Case) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the gradient of the case, written by hand."""
    loss = case.loss or tf.nn.sparse_softmax_cross_entropy_with_logits

    def input_gradient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            losses = loss(labels=y, logits=case.network(x))
        return tape.gradient(losses, x)

    return input_gradient


def tf_function(case: Case) -> Crafting:
    """Return the attack in ten lines, as a good engineer would write it by hand."""
    input_gradient, attack = tape_gradient(case), case.attack

    @tf.function
    def bim(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        x_adv = x
        for _ in range(attack.num_steps):
            x_adv += attack.step_size * tf.sign(input_gradient(x_adv, y))
            x_adv = tf.clip_by_value(x_adv, x - attack.eps, x + attack.eps)
        return x_adv

    return case.in_batches(bim)


def art(case: Case) -> Crafting:
    """Return the attack of the Adversarial Robustness Toolbox."""
    from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod
    from art.estimators.classification import TensorFlowV2Classifier

    logging.getLogger("art").setLevel(logging.WARNING)
    attack, num_classes = case.attack, case.network.output_shape[-1]
    loss: Callable[..., tf.Tensor]
    if case.loss:

        def loss(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            return mean_loss(tf.argmax(y, axis=-1), logits)

    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    classifier = TensorFlowV2Classifier(
        case.network, num_classes, case.network.input_shape[1:], loss_object=loss
    )
    options: dict[str, float] = {"eps": attack.eps, "batch_size": case.batch_size}
    if attack.num_steps == 1:
        method = FastGradientMethod(classifier, **options)
    else:
        options |= {"eps_step": attack.step_size, "max_iter": attack.num_steps}
        method = BasicIterativeMethod(classifier, **options, verbose=False)
    return lambda x, y: method.generate(x, np.eye(num_classes)[y])


def foolbox(case: Case) -> Crafting:
    """Return the attack of Foolbox, without its test of success."""
    import eagerpy
    from foolbox import TensorFlowModel, attacks

    # Foolbox always clips. These are bounds that no attacked image reaches.
    model, attack = TensorFlowModel(case.network, bounds=(-10, 10)), case.attack
    if attack.num_steps == 1:
        method = attacks.LinfFastGradientAttack()
    else:
        method = attacks.LinfBasicIterativeAttack(
            abs_stepsize=attack.step_size, steps=attack.num_steps, random_start=False
        )
    if case.loss:
        method.get_loss_fn = lambda model, y: (
            lambda x: eagerpy.astensor(mean_loss(y.raw, model(x).raw)).sum()
        )
    return case.in_batches(
        lambda x, y: method.run(
            model, tf.constant(x), tf.constant(y), epsilon=attack.eps
        )
    )


def cleverhans(case: Case) -> Crafting:
    """Return the attack of CleverHans 4."""
    from cleverhans.tf2.attacks import fast_gradient_method as fgsm
    from cleverhans.tf2.attacks import projected_gradient_descent as pgd

    attack = case.attack
    options: dict[str, Any] = {"eps": attack.eps, "norm": np.inf, "loss_fn": case.loss}
    method = fgsm.fast_gradient_method
    if attack.num_steps > 1:
        method = pgd.projected_gradient_descent
        options |= {"eps_iter": attack.step_size, "nb_iter": attack.num_steps}
        options["rand_init"] = False
    return case.in_batches(
        lambda x, y: method(case.network, tf.constant(x), y=tf.constant(y), **options)
    )


def torchattacks(case: Case) -> Crafting | None:
    """Return the attack of torchattacks, on the same networks in PyTorch."""
    import torch
    import torchattacks

    import torch_networks

    if case.loss:
        return None
    attack, members = case.attack, case.members
    network = torch_networks.Voting(members, [case.architecture for _ in members])
    # torchattacks always clips to [0, 1]. With the normalization below, its [0, 1]
    # stands for [-1, 2].
    eps, step_size = attack.eps / 3, attack.step_size / 3
    if attack.num_steps == 1:
        method = torchattacks.FGSM(network, eps)
    else:
        method = torchattacks.BIM(network, eps, step_size, attack.num_steps)
    third = [1 / 3] * case.network.input_shape[-1]
    method.set_normalization_used(mean=third, std=third)

    def attack_batch(x: Images, y: Labels) -> Images:
        images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
        return method(images, torch.from_numpy(y)).permute(0, 2, 3, 1).numpy()

    return case.in_batches(attack_batch)


CONTENDERS: Final[dict[str, Callable[[Case], Crafting | None]]] = {
    "advens": advens,
    "advens, bfloat16": functools.partial(advens, compute="bfloat16"),
    "tf.function by hand": tf_function,
    "ART": art,
    "Foolbox": foolbox,
    "CleverHans": cleverhans,
    "torchattacks": torchattacks,
}
