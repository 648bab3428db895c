"""Ensembles that are used again with other members' weights."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from advens.models.architecture import Architecture, KerasArchitecture
from advens.models.ensemble import Ensemble
from advens.storage.store import Store
from advens.training.members import load_ensemble, load_weights
from advens.training.recipe import Member

_KEPT_ENSEMBLES: Final = 3


class LoadedEnsembles:
    """Ensembles by their architectures, with what was compiled for them.

    An ensemble is reused for other members of the same architectures: only its weights
    change. Three are kept: Table 2 has two, and Table 4 adds single networks.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[
            tuple[Architecture | KerasArchitecture, ...], tuple[list[Member], Ensemble]
        ] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def load(self, members: Sequence[Member], store: Store) -> Ensemble:
        """Return the ensemble of these members, with their weights from the store."""
        architectures = tuple(member.recipe.architecture for member in members)
        loaded, ensemble = self._kept.pop(architectures, (None, None))
        if ensemble is None:
            ensemble = load_ensemble(members, store)
        elif loaded != list(members):
            load_weights(ensemble, members, store)
        self._kept[architectures] = list(members), ensemble
        if len(self._kept) > _KEPT_ENSEMBLES:
            self._kept.popitem(last=False)
        return ensemble
