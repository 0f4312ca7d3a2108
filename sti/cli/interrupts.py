"""Ctrl-C between two batches rather than within one.

In: nothing. Out: whether Ctrl-C was pressed. Whoever presses it twice, or while input is waited
for, is not kept waiting.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def between_batches(waiting: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Take note of Ctrl-C, to be asked for; has no effect in a thread that gets no signals.

    Args:
        waiting: whether the program waits for input now; Ctrl-C ends that at once.
    """
    pressed = False

    def take_note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed or waiting():
            (usual if callable(usual) else signal.default_int_handler)(number, frame)
        pressed = True

    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.SIG_IGN:  # it stays so
        yield lambda: False
        return
    try:
        signal.signal(signal.SIGINT, take_note)
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, usual)
