"""Ctrl-C that lets the work under way come to a good end."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class GracefulStop:
    """While entered, the first interrupt only sets `requested`; the second one aborts at once.

    Handles Ctrl-C and the polite request to terminate that batch systems send. In another thread than the main one,
    where Python takes no signals, it does nothing.

    Args:
        announce: called with a line of text at the first interrupt.
    """

    def __init__(self, announce: Callable[[str], None]):
        self.requested = False
        self._announce = announce
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self.__exit__()
            raise KeyboardInterrupt
        self.requested = True
        self._announce("stopping after the rounds under way; press Ctrl-C again to abort without saving")
