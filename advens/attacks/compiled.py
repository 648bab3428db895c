"""The gradient of a threat, as programs that its ensemble keeps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from advens import backend
from advens.arrays import Tensor
from advens.attacks.evaluation import Evaluation, Evaluator, losses_like
from advens.attacks.gradients import uncompiled_gradient
from advens.attacks.logit_loss import LogitLoss
from advens.attacks.threat import Threat
from advens.checks import check_labels
from advens.models.alike import weights
from advens.models.ensemble import Ensemble, check_images


@dataclasses.dataclass(frozen=True)
class CompiledGradient:
    """A gradient, compiled once per shape of images.

    One program serves attacks of any eps, step size and number of steps, and all
    members that differ only in their weights. It is kept in `ensemble.programs`, and
    sees the weights that the members have at each call.

    Attributes:
        ensemble: the ensemble that is attacked.
        threat: which gradient.
    """

    ensemble: Ensemble = dataclasses.field(repr=False)
    threat: Threat

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient at `x`, see `Gradient`."""
        return self._call("__call__", x, y)

    def evaluate(
        self, x: Tensor, y: Tensor, targets: Tensor | None = None
    ) -> Evaluation:
        """Return the losses, their gradients and who is right.

        One program serves all cross-entropies of the whole ensemble, see `Evaluator`.

        Args:
            x: `(n, h, w, c)` float32.
            y: `(n,)` int, the true labels.
            targets: `(n,)` int classes, for `objective="targeted_dlr"`.

        Raises:
            ValueError: if the threat follows another loss than the exact one or other
                labels than the true ones.
        """
        ensemble, threat = self.ensemble, self.threat
        if (threat.loss, threat.labels) != ("exact", "true"):
            raise ValueError(
                "`threat` must have loss='exact' and labels='true' for attacks that "
                f"look at losses, too. Received: {threat}"
            )
        losses = losses_like(threat, ensemble.votes)
        own = LogitLoss(threat.gradient, threat.objective, ensemble.votes)
        whole = threat.index is None or len(ensemble) == 1
        votes = ensemble.votes if whole else None

        def uncompiled(threat: Threat) -> Callable[..., Any]:
            networks = uncompiled_gradient(ensemble, threat).networks
            return Evaluator(networks, losses, votes, threat.num_draws)

        # The program knows nothing of which of its losses it is asked for.
        same = dataclasses.replace(threat, gradient=losses[0].source)
        program = self._program(same, "evaluate", uncompiled)
        which = ops.convert_to_tensor(losses.index(own), "int32")
        targets = ops.zeros_like(y) if targets is None else targets
        return program(which, x, y, targets)

    def check(self, x: Tensor, y: Tensor) -> None:
        """Raise a `ValueError` unless these are images and labels of the ensemble."""
        check_images(self.ensemble, x)
        if backend.is_known(y):
            classes = self.ensemble.num_classes or self.ensemble(x[:1]).shape[-1]
            check_labels(ops.convert_to_numpy(y), classes)

    def start_labels(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the labels for an attack that starts at `x`, see `Gradient`."""
        if self.threat.labels != "predicted":
            return y
        return self._call("start_labels", x, y)

    def nan_members(self, x: Tensor, y: Tensor) -> list[int]:
        """Return whose gradients at `x` have a NaN, see `Gradient`."""
        return uncompiled_gradient(self.ensemble, self.threat).nan_members(x, y)

    def _call(self, method: str, x: Tensor, y: Tensor) -> Tensor:
        """Call the program of a method of the `Gradient`."""

        def uncompiled(threat: Threat) -> Callable[..., Any]:
            return getattr(uncompiled_gradient(self.ensemble, threat), method)

        x = ops.convert_to_tensor(x, "float32")
        if not backend.is_known(x):  # in a program of the user's own
            return uncompiled(self.threat)(x, y)
        return self._program(self.threat, method, uncompiled)(x, y)

    def _program(
        self, threat: Threat, name: str, make: Callable[[Threat], Callable[..., Any]]
    ) -> Callable[..., Any]:
        """Return the program of a threat, compiled from what `make` returns."""
        ensemble, index = self.ensemble, threat.index
        first = None if index is None else ensemble.first_alike[index]
        if index is None or first is None:
            return ensemble.programs.get(
                (threat, name), lambda: backend.compile(make(threat), ensemble)
            )
        # The program of the first member that differs only in its weights.
        threat = dataclasses.replace(threat, index=first)
        program = ensemble.programs.get(
            (threat, name),
            lambda: backend.compile_for_any(
                make(threat), weights(ensemble.logits_models[first])
            ),
        )
        return functools.partial(program, weights(ensemble.logits_models[index]))


def gradient(ensemble: Ensemble, threat: Threat) -> CompiledGradient:
    """Return the gradient that an attacker on an ensemble follows.

    It maps images `(n, h, w, c)` float32 and labels `(n,)` int to a gradient of the
    images' shape.

    - `"member"`, Grad. 1 (Section 3): the gradient of J(theta_i, x, y).
    - `"mean_member"`, Grad. 2 (Section 3): the mean over i of these gradients.
    - `"ensemble"`: the gradient of -log(mean over i of p_i(y | x)).

    See `Gradient` and `uncompiled_gradient` for the details.

    Args:
        ensemble: an ensemble of `m` members.
        threat: which gradient.

    Raises:
        ValueError: if `ensemble` is not an `Ensemble`, the threat's index is not a
            member's, or a member cannot compute in bfloat16 as the threat asks.
    """
    uncompiled_gradient(ensemble, threat)  # finds what is wrong
    return CompiledGradient(ensemble, threat)
