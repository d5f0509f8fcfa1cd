"""Pictures that take long to make are made while the kernel has nothing else to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from tqdm.auto import tqdm

from ldm_viz.widgets.pictures import PictureFiles

_PAUSE = 0.02  # seconds between two parts, in which the kernel reads its messages
_BEFORE = 0.25  # seconds until the first, so that what is there is drawn before
_SEND_EVERY = 1.5  # seconds at least between two sendings, which carry all files


class Filler:
    """Makes the pictures of a widget: those that take no time at once, others in the kernel's idle time.

    A part is made on the kernel's own loop, between two cells, and so never while one of the user's runs: nothing
    that shares a model with it can be disturbed.

    Args:
        files: the pictures of each run that is shown.
        show: called with a note when there are more to show; the note is empty when all are there.
        where: tells the step and the sample that are looked at, for which pictures are made first.
    """

    def __init__(
        self,
        files: Sequence[PictureFiles],
        show: Callable[[str], None],
        where: Callable[[], tuple[int, int]],
    ) -> None:
        self._files = files
        self._show = show
        self._where = where
        self._handle: asyncio.TimerHandle | None = None
        self._count = 1
        self._sent = 0.0

    @property
    def missing(self) -> int:
        """How many pictures are not there yet."""
        return sum(files.missing for files in self._files)

    @property
    def note(self) -> str:
        """What to tell while there are some missing."""
        total = sum(files.total for files in self._files)
        missing = self.missing
        if not missing:
            return ""
        return f"Exact pictures: {total - missing} of {total}. The others are a preview until then."

    def begin(self) -> None:
        """Make those that take no time."""
        step, sample = self._where()
        for files in self._files:
            files.make(step, sample, files.patience)

    def fill_when_idle(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Make the others bit by bit, if there is a loop to do it on.

        Args:
            loop: the loop; that of the kernel by default.
        """
        if not self.missing or self._handle is not None:
            return
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
        self._sent = time.monotonic()
        self._handle = loop.call_later(_BEFORE, self._fill, loop)

    def stop(self) -> None:
        """Make no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fill(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = None
        begun = time.monotonic()
        try:
            self._make(self._count)
        except Exception as error:  # noqa: BLE001  # there is no cell that could show it
            self._show(f"Not all exact pictures could be made: {type(error).__name__}: {error}")
            return
        seconds = time.monotonic() - begun
        self._count = max(1, self._count // 2) if seconds > 0.3 else self._count * 2
        if not self.missing:
            self._show("")
            return
        if time.monotonic() - self._sent > _SEND_EVERY:
            self._show(self.note)
            self._sent = time.monotonic()
        self._handle = loop.call_later(_PAUSE, self._fill, loop)

    def _make(self, count: int) -> None:
        step, sample = self._where()
        for files in self._files:
            if files.missing:
                files.make_some(step, sample, count)

    def finish(self) -> None:
        """Make all that are missing now, with a progress bar."""
        self.stop()
        missing = self.missing
        if not missing:
            return
        step, sample = self._where()
        try:
            with tqdm(total=missing, desc="Decoding frames", leave=False) as bar:
                for files in self._files:
                    files.make(step, sample, told=bar.update)
        finally:
            self._show(self.note)
