"""One attack by advens, by hand and by its peers.

Each contender takes a `Case` and returns a function of images and labels that returns
adversarial images, all of them numpy; None where it cannot follow that gradient. One
that is not installed raises an `ImportError`. All take sign steps from a loss of logits
with the true labels, and do not clip to [0, 1].
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, Final, get_args

import common
import keras
import numpy as np
import tensorflow as tf
from keras import ops

from advens import evaluation, gradients
from advens.attacks import Attack, craft
from advens.ensemble import Compute, Ensemble
from advens.evaluation import Threat
from advens.logits import logits_model
from advens.models import Architecture

Crafting = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What all contenders compute.

    Attributes:
        ensemble: who is attacked.
        architecture: of each member.
        threat: the gradient, with the true labels.
        attack: the settings, without a box.
        batch_size: images at once.
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
        return self.ensemble.members if index is None else [self.ensemble[index]]

    @functools.cached_property
    def network(self) -> keras.Model:
        """What peers attack: logits; of several members, log probabilities.

        For the ensemble's gradient these are the logarithm of the mean probability, for
        Grad. 2 the mean of the logarithms: `mean_loss` is the loss that suits them.
        """
        if self.threat.gradient == "member":
            return logits_model(self.members[0])
        x = keras.Input(self.members[0].input_shape[1:])
        logits = ops.stack([logits_model(member)(x) for member in self.members])
        if self.threat.gradient == "ensemble":
            return keras.Model(x, gradients.mean_log_probs(logits))
        return keras.Model(x, ops.mean(ops.log_softmax(logits), axis=0))

    @property
    def loss(self) -> Callable[..., tf.Tensor] | None:
        """The loss that a peer must be given; None: its own cross-entropy will do."""
        return mean_loss if self.threat.gradient == "mean_member" else None

    def in_batches(self, function: Callable) -> Crafting:
        """Return `function`, called with one batch after another."""

        def of_all(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            starts = range(0, len(x), self.batch_size)
            batches = [slice(start, start + self.batch_size) for start in starts]
            return np.concatenate([np.asarray(function(x[b], y[b])) for b in batches])

        return of_all


def mean_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the mean of the members' losses; `logits` are means of log probabilities.

    No cross-entropy computes it: their exponentials do not sum to 1.
    """
    return -tf.gather(logits, labels, batch_dims=1)


def advens_gradient(case: Case, compute: Compute) -> gradients.Gradient:
    """Return the gradient as advens computes it."""
    return dataclasses.replace(case.threat, compute=compute).of(case.ensemble)


def advens(case: Case, compute: Compute = "float32") -> Crafting:
    """Return what a user of advens would write."""
    gradient = advens_gradient(case, compute)
    compiled = gradients.compiled(
        lambda x, y: craft(gradient, x, y, [case.attack])[0], case.ensemble
    )
    return case.in_batches(lambda x, y: compiled(x, y).x_adv)


def tape_gradient(case: Case) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the gradient as one writes it by hand."""
    loss = case.loss or tf.nn.sparse_softmax_cross_entropy_with_logits

    def gradient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            losses = loss(labels=y, logits=case.network(x))
        return tape.gradient(losses, x)

    return gradient


def tf_function(case: Case) -> Crafting:
    """Return the attack in ten lines, as a good engineer writes it."""
    gradient, attack = tape_gradient(case), case.attack

    @tf.function
    def bim(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        x_adv = x
        for _ in range(attack.num_steps):
            x_adv += attack.step_size * tf.sign(gradient(x_adv, y))
            x_adv = tf.clip_by_value(x_adv, x - attack.eps, x + attack.eps)
        return x_adv

    return case.in_batches(bim)


def art(case: Case) -> Crafting:
    """Return the attack of the Adversarial Robustness Toolbox."""
    from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod
    from art.estimators.classification import TensorFlowV2Classifier

    logging.getLogger("art").setLevel(logging.WARNING)
    attack, num_classes = case.attack, case.network.output_shape[-1]
    loss: Any = keras.losses.CategoricalCrossentropy(from_logits=True)
    if case.loss:
        loss = lambda y, logits: mean_loss(tf.argmax(y, axis=-1), logits)  # noqa: E731
    classifier = TensorFlowV2Classifier(
        case.network, num_classes, case.network.input_shape[1:], loss_object=loss
    )
    options: Any = {"eps": attack.eps, "batch_size": case.batch_size}
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

    # It insists on clipping: to bounds that no attacked image reaches.
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
    options: Any = {"eps": attack.eps, "norm": np.inf, "loss_fn": case.loss}
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
    import torch_networks
    import torchattacks

    if case.loss:
        return None
    members = torch.nn.ModuleList()
    for member in case.members:
        members.append(torch_networks.build(case.architecture))
        torch_networks.copy_weights(member, members[-1])

    class Voting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = members

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.stack([member(x) for member in self.members])
            # The log of the mean probability, up to a constant.
            return torch.logsumexp(torch.log_softmax(logits, dim=-1), dim=0)

    attack = case.attack
    network = (Voting() if len(members) > 1 else members[0]).eval()
    # It insists on clipping to [0, 1]: for it, that stands for [-1, 2].
    eps, step_size = attack.eps / 3, attack.step_size / 3
    if attack.num_steps == 1:
        method = torchattacks.FGSM(network, eps)
    else:
        method = torchattacks.BIM(network, eps, step_size, attack.num_steps)
    third = [1 / 3] * case.network.input_shape[-1]
    method.set_normalization_used(mean=third, std=third)

    def of_batch(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
        return method(images, torch.from_numpy(y)).permute(0, 2, 3, 1).numpy()

    return case.in_batches(of_batch)


CONTENDERS: Final[dict[str, Callable[[Case], Crafting | None]]] = {
    "advens": advens,
    "advens, bfloat16": functools.partial(advens, compute="bfloat16"),
    "tf.function by hand": tf_function,
    "ART": art,
    "Foolbox": foolbox,
    "CleverHans": cleverhans,
    "torchattacks": torchattacks,
}


def contend(
    case: Case, x: np.ndarray, y: np.ndarray, missing: dict[str, str], bfloat16: bool
) -> dict[str, dict[str, Any]]:
    """Let all contenders attack in turns.

    Args:
        case: what they compute.
        x: `(n, h, w, c)` float32 in [0, 1].
        y: `(n,)` int labels.
        missing: what is not installed, and why; filled in.
        bfloat16: whether advens attacks by gradients in bfloat16, too.

    Returns:
        For each contender `images_per_second` and `ratios`, advens over contender, both
        `(rounds,)`; `robust_accuracy`; `identical_pixels`, the share that advens has
        too; for bfloat16 `changed_signs`, the share in the first gradient.
    """
    calls, x_adv = {}, {}

    def keep(name: str, attack: Crafting) -> None:
        x_adv[name] = attack(x, y)

    for name, contender in CONTENDERS.items():
        if name == "advens, bfloat16" and not bfloat16:
            continue
        try:
            if attack := contender(case):
                calls[name] = functools.partial(keep, name, attack)
        except ImportError as error:
            missing[name] = str(error)
    seconds = common.in_turns(calls)
    found: dict[str, dict[str, Any]] = {}
    for name, took in seconds.items():
        [judged] = evaluation.evaluate(case.ensemble, x_adv[name], y)
        found[name] = {
            "images_per_second": len(x) / took,
            "ratios": took / seconds["advens"],
            "robust_accuracy": judged.ensemble.mean(),
            "identical_pixels": np.mean(np.abs(x_adv[name] - x_adv["advens"]) <= 1e-6),
        }
    if bfloat16:
        signs = []
        for compute in get_args(Compute):
            gradient = advens_gradient(case, compute)
            of_batches = case.in_batches(gradients.compiled(gradient, case.ensemble))
            signs.append(np.sign(of_batches(x, y)))
        found["advens, bfloat16"]["changed_signs"] = np.mean(signs[0] != signs[1])
    return found
