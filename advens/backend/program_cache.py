"""Compiled functions, of which only so many are kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class ProgramCache:
    """Compiled functions. Where there is no room, the least recently used is dropped.

    Several threads may use it: at worst two compile the same function.

    Args:
        size: how many functions it keeps, >= 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._programs: OrderedDict[Hashable, Callable] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._programs)

    def get(self, key: Hashable, make: Callable[[], Callable]) -> Callable:
        """Return the function kept under `key`, or the one that `make` returns."""
        with self._lock:
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
        program = make()
        with self._lock:
            self._programs[key] = program
            while len(self._programs) > self.size:
                self._programs.popitem(last=False)
        return program
