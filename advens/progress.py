"""Progress on the terminal: members and epochs in training, images under attack."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LOG: Final = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.5
# Of many members it takes long to tell how far they are: that is at most this share of
# the time.
_POLL_SHARE: Final = 0.05


class Bars:
    """Progress bars, on standard error.

    Where that is no terminal, a line is printed when all is done.

    Args:
        show: False shows none.
    """

    def __init__(self, show: bool = False) -> None:
        self._show = show

    @contextlib.contextmanager
    def training(
        self, label: str, epochs: list[int], epochs_done: Callable[[], list[int]]
    ) -> Iterator[None]:
        """Show how far members are, in whichever process they train.

        Args:
            label: what is trained.
            epochs: the number of epochs of each member.
            epochs_done: returns how many of them are done, for each member.
        """
        stored = sum(map(int.__eq__, epochs_done(), epochs))
        _LOG.info("%s: %d of %d networks in the store", label, stored, len(epochs))
        with self._bar(f"{label}: training", sum(epochs), "epochs") as progress:
            stop = threading.Event()

            def update() -> None:
                done = epochs_done()
                whole = sum(map(int.__eq__, done, epochs))
                progress.update(
                    progress.task_ids[0],
                    completed=sum(done),
                    note=f"epochs, {whole}/{len(epochs)} members",
                )

            def poll() -> None:
                pause = 0.0
                while not stop.wait(pause):
                    start = time.monotonic()
                    update()
                    took = time.monotonic() - start
                    pause = max(_POLL_SECONDS, took / _POLL_SHARE)

            poller = threading.Thread(target=poll, daemon=True)
            poller.start()
            try:
                yield
            finally:
                stop.set()
                poller.join()
                update()

    @contextlib.contextmanager
    def attacks(self, label: str, images: int) -> Iterator[Callable[[int], None]]:
        """Show the images attacked; yield the function that counts new ones."""
        _LOG.info("%s: attacks", label)
        with self._bar(f"{label}: attacks", images, "images") as progress:
            yield lambda count: progress.advance(progress.task_ids[0], count)

    @contextlib.contextmanager
    def audit(self) -> Iterator[Callable[[str, float, float], None]]:
        """Show how much of an audit is done; yield the function that updates it.

        It takes what is being done, the work done, and the whole work.
        """
        with self._bar("audit", 1, "", TaskProgressColumn()) as progress:

            def update(note: str, done: float, total: float) -> None:
                task = progress.task_ids[0]
                progress.update(task, completed=done, total=total, note=note)

            yield update

    @contextlib.contextmanager
    def _bar(
        self,
        description: str,
        total: int,
        note: str,
        count: ProgressColumn | None = None,
    ) -> Iterator[Progress]:
        # Wide enough for all columns, also where there is no terminal.
        console = Console(stderr=True)
        console.width = max(100, console.width)
        counts = [count or MofNCompleteColumn(), TextColumn("{task.fields[note]}")]
        columns: list[ProgressColumn] = [*counts, TimeElapsedColumn()]
        if console.is_terminal:
            columns = [BarColumn(), *columns, TextColumn("left"), TimeRemainingColumn()]
        with Progress(
            TextColumn("{task.description:<24}"),
            *columns,
            console=console,
            speed_estimate_period=600,  # an epoch can take minutes
            disable=not (self._show and total),
        ) as progress:
            progress.add_task(description, total=total, note=note)
            yield progress
