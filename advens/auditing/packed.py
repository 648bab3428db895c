"""An ensemble on its way to the workers of a cluster."""

import dataclasses
import functools
import pickle
from collections.abc import Sequence

from advens.auditing.checksums import checksum_of
from advens.models.ensemble import Ensemble
from advens.models.logits import Outputs
from advens.models.votes import Votes


@dataclasses.dataclass(frozen=True)
class PackedEnsemble:
    """What an ensemble is made of.

    Attributes:
        members: each as a pickle of Keras.
        outputs: see `Ensemble`.
        votes: see `Ensemble`.
        checksums: of the members, see `checksum_of`.
    """

    members: tuple[bytes, ...]
    outputs: Outputs | tuple[Outputs | None, ...] | None
    votes: Votes
    checksums: tuple[str, ...]


def packed(ensemble: Ensemble, checksums: Sequence[str]) -> PackedEnsemble:
    """Pack an ensemble.

    Args:
        ensemble: the ensemble.
        checksums: of its members.

    Raises:
        ValueError: if a member cannot be pickled.
    """
    members = []
    for index, member in enumerate(ensemble):
        try:
            members.append(pickle.dumps(member))
        except Exception as error:  # of a subclass, get_config may raise anything
            raise ValueError(
                "To be sent to a cluster, members must be models that Keras can save. "
                f"Received: members[{index}] ({error})"
            ) from error
    outputs = ensemble.member_outputs
    if outputs is not None and not isinstance(outputs, str):
        outputs = tuple(outputs)
    return PackedEnsemble(tuple(members), outputs, ensemble.votes, tuple(checksums))


@functools.lru_cache(maxsize=1)
def unpacked(ensemble: PackedEnsemble) -> Ensemble:
    """Return the ensemble that was packed, once for all pieces of an audit.

    Raises:
        RuntimeError: if a member is not what it was.
    """
    members = []
    for index, member in enumerate(ensemble.members):
        try:
            members.append(pickle.loads(member))
        except Exception as error:
            raise RuntimeError(
                f"It cannot load members[{index}], whose classes and functions must be "
                f"registered with Keras and importable there ({error})"
            ) from error
        if checksum_of(members[-1]) != ensemble.checksums[index]:
            raise RuntimeError(
                f"members[{index}] is another model when Keras has loaded it: its "
                "get_config must tell all that it is made of"
            )
    return Ensemble(members, outputs=ensemble.outputs, votes=ensemble.votes)
