"""Ctrl-C as a question instead of an exception."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended: 128 + SIGINT


class Interrupt:
    """While entered, the first Ctrl-C sets `requested`; a second one raises KeyboardInterrupt as usual.

    A training step that donates its state owns it until it returns. An exception in between would lose the state, so
    the loop asks `requested` between two steps.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._ours:
            signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
