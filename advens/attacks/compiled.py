"""The gradient of a threat, as programs that its ensemble keeps."""

import dataclasses
from collections.abc import Callable

from advens import backend
from advens.arrays import Tensor
from advens.attacks.gradients import gradient
from advens.attacks.threat import Threat
from advens.models.ensemble import Ensemble


@dataclasses.dataclass(frozen=True)
class CompiledGradient:
    """What `gradient(ensemble, threat)` computes, compiled once per shape of images.

    One program serves attacks of any eps, step size and number of steps. It is kept in
    `ensemble.programs`, and sees the weights that the members have at each call.

    Attributes:
        ensemble: the ensemble that is attacked.
        threat: which gradient.
    """

    ensemble: Ensemble = dataclasses.field(repr=False)
    threat: Threat

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient at `x`, see `Gradient`."""
        return self._program("__call__")(x, y)

    def start_labels(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the labels for an attack that starts at `x`, see `Gradient`."""
        if self.threat.labels != "predicted":
            return y
        return self._program("start_labels")(x, y)

    def nan_members(self, x: Tensor, y: Tensor) -> list[int]:
        """Return whose gradients at `x` have a NaN, see `Gradient`."""
        return gradient(self.ensemble, self.threat).nan_members(x, y)

    def _program(self, method: str) -> Callable[[Tensor, Tensor], Tensor]:
        def make() -> Callable[[Tensor, Tensor], Tensor]:
            function = getattr(gradient(self.ensemble, self.threat), method)
            return backend.compile(function, self.ensemble)

        return self.ensemble.programs.get((self.threat, method), make)
