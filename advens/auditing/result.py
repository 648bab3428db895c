"""What an audit found: the outcomes, image by image."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advens.arrays import Answers, Floats, Images, Ints, Labels
from advens.auditing.document import document
from advens.auditing.panel import panel
from advens.auditing.sanity import Check
from advens.auditing.suite import Budget, Result
from advens.auditing.work import Arrays
from advens.models.votes import Votes


@dataclasses.dataclass(frozen=True)
class AuditedMember:
    """A member of an ensemble that was audited.

    Attributes:
        name: its name.
        sha256: see `work.checksum_of`.
        parameters: the number of its weights.
        half_precision: the dtype in which some of its layers compute, if it is less
            than float32; else None.
    """

    name: str
    sha256: str
    parameters: int
    half_precision: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found. `n` images, `m` members, `k` classes.

    Attributes:
        budget: how hard it attacked.
        time_budget: see `audit`.
        votes: how the members vote.
        members: the members.
        checksum: of the images.
        y: `(n,)` int, the labels.
        image_shape: the shape of an image.
        classes: `(n, m)` int, the members' answers without attack.
        log_probs: `(n, k)`, the logarithms of the ensemble's probabilities.
        results: what each attack did.
        x_adv: `(n, ...)` float32, see `suite.run_suite`.
        classes_adv: like `classes`, for `x_adv`.
        log_probs_adv: like `log_probs`, for `x_adv`.
        sample: `(p,)` int, the images of the probes.
        probes: what each probe found; None for which there was no time.
        seconds: the time that all attacks and probes took.
        backend: the name of Keras's backend.
        devices: what it computed on.
    """

    budget: Budget
    time_budget: float | None
    votes: Votes
    members: Sequence[AuditedMember]
    checksum: str
    y: Labels
    image_shape: tuple[int, ...]
    classes: Ints
    log_probs: Floats
    results: Sequence[Result]
    x_adv: Images
    classes_adv: Ints
    log_probs_adv: Floats
    sample: Ints
    probes: Mapping[str, Arrays | None]
    seconds: float
    backend: str
    devices: Sequence[str]

    @property
    def clean(self) -> Answers:
        """`(n,)` bool, whether the ensemble is right without attack."""
        return self.log_probs.argmax(axis=1) == self.y

    @property
    def robust(self) -> Answers:
        """`(n,)` bool, whether it is right under every attack: the worst case."""
        return self.after(len(self.results))

    def after(self, count: int) -> Answers:
        """Return who is right without attack and under the first attacks, `(n,)`."""
        broken = [result.broken for result in self.results[:count]]
        return self.clean & ~np.any([np.zeros(len(self.y), bool), *broken], axis=0)

    def panel(self) -> list[Check]:
        """Return the sanity panel: whether the accuracy can be trusted."""
        return panel(self)

    def document(self) -> dict[str, Any]:
        """Return all numbers, settings and versions, as JSON can hold them."""
        return document(self)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the outcomes, image by image, see `docs/audit.md`."""
        broken_by = np.where(self.clean, -1, -2)
        for index, result in enumerate(self.results):
            broken_by[result.broken] = index
        return {
            "y": self.y,
            "clean_members": self.classes.T,
            "clean_ensemble": self.log_probs.argmax(axis=1),
            "robust": self.robust,
            "x_adv": self.x_adv,
            "predicted": self.log_probs_adv.argmax(axis=1),
            "broken_by": broken_by,
            "sample": self.sample,
            "smallest_eps": self.smallest_eps,
        }

    @property
    def smallest_eps(self) -> Floats:
        """`(p,)` float32: the smallest radius at which each sampled image was broken.

        0 for images that are misclassified anyway, infinity for those that resist.
        """
        found = self.probes["eps"]
        smallest = np.full(len(self.sample), np.inf, "float32")
        if found is not None:
            smallest = found["smallest"].copy()
        broken = (self.clean & ~self.robust)[self.sample]
        smallest[broken] = np.minimum(smallest[broken], self.budget.eps)
        return smallest
