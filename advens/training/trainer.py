"""A compiled network that trains one member after another."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

import keras
from keras import ops

from advens.arrays import Floats, Tensor
from advens.defenses.adversarial_training import AdversarialTraining
from advens.defenses.distillation import student_model
from advens.models import convnet
from advens.models.logits import logits_model
from advens.training.optimizers import make_optimizer
from advens.training.recipe import Recipe
from advens.training.state import MemberInTraining, State

# Number of training images that show whether a network is alive.
PROBE_IMAGES: Final = 500


class Trainer(ABC):
    """A network and its optimizer, compiled for the members that share a trainer.

    Args:
        recipe: of one of these members, see `recipe.trainer_key`.
        conv: class of the convolutions.
        dropout: class of the dropout layers.

    Attributes:
        network: the network, which returns probabilities.
        model: what is trained; it shares the network's weights.
        variables: by name, what differs between members: the network's variables and
            the optimizer's.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        conv: type[keras.layers.Conv2D] = keras.layers.Conv2D,
        dropout: type[keras.layers.Dropout] = keras.layers.Dropout,
    ) -> None:
        self._build = functools.partial(
            convnet.build,
            recipe.architecture,
            dtype=recipe.precision,
            conv=conv,
            dropout=dropout,
        )
        self.network = self._build(seed=0)
        self.model = _training_model(self.network, recipe)
        variables = [*self.network.variables, *self.model.optimizer.variables]
        self.variables = {f"variable_{i:03d}": v for i, v in enumerate(variables)}
        self._initial = self._state()
        self._logits = logits_model(self.network)

    def start(self, seed: int) -> State:
        """Return the state of a new member: all that a resumed training needs.

        Args:
            seed: of its weights and dropout masks.
        """
        fresh = map(ops.convert_to_numpy, self._build(seed=seed).variables)
        # The network's variables come first.
        return {**self._initial, **dict(zip(self._initial, fresh, strict=False))}

    def weights(self, state: State) -> list[Floats]:
        """Return a member's weights, in the order of `Model.get_weights`."""
        weights = {id(variable) for variable in self.network.weights}
        return [state[k] for k, v in self.variables.items() if id(v) in weights]

    def is_alive(self, x: Tensor) -> Tensor:
        """Return whether any logit of some images is not zero.

        A network dies when all its logits become zero for every image, as they can
        where they are ReLU'd (docs/protocol.md, point 26): no step changes it any more.

        Args:
            x: `(n, h, w, c)` float32, the training images, of which some are enough.
        """
        logits = self._logits(x[:PROBE_IMAGES], training=False)
        return ops.any(ops.not_equal(logits, 0))

    @abstractmethod
    def fit(
        self,
        running: Sequence[MemberInTraining],
        after_epoch: Callable[[MemberInTraining], None],
    ) -> None:
        """Train members until one of them is done or dead, and bring them up to date.

        Args:
            running: members that share this trainer, see `recipe.trainer_key`. A
                trainer that does not stack takes one.
            after_epoch: called with each member that is alive after an epoch.
        """

    @abstractmethod
    def default_stack(self, training: MemberInTraining) -> int:
        """Return how many members like this one `fit` takes at a time by default."""

    def _state(self) -> State:
        return {k: ops.convert_to_numpy(v).copy() for k, v in self.variables.items()}


def _training_model(network: keras.Model, recipe: Recipe) -> keras.Model:
    """Return the compiled model that trains a network as a recipe says."""
    # From logits: Keras clips probabilities on some backends.
    loss: keras.losses.Loss
    if recipe.distillation:
        model = student_model(
            network,
            temperature=recipe.distillation.temperature,
            formula=recipe.distillation.formula,
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    else:
        model = logits_model(network)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if settings := recipe.adversarial:
        model = AdversarialTraining(
            model,
            eps=settings.eps,
            rho=settings.rho,
            box=settings.box,
            labels=settings.labels,
            loss=settings.loss,
            outputs="logits",
        )
    optimizer = make_optimizer(
        recipe.optimizer,
        recipe.learning_rate,
        momentum=recipe.momentum,
        decay=recipe.decay,
    )
    if recipe.precision == "mixed_float16":
        # Keras does so by itself only where the whole model has that policy.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, loss=loss)
    model.optimizer.build(model.trainable_variables)
    return model
