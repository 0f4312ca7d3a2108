"""Starting threads where the system may refuse, and work that may never return.

In: a thread, or work. Effect: it runs, or an error names the limits there are. Knows nothing of
what it does.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from sti.errors import RunError

T = TypeVar("T")

LOOK_S = 0.25
"""How often whoever waits for a thread that reads looks whether it still does."""


def older(age_s: float, looked_s: float, now_s: float) -> float:
    """The age of what is waited for, as of another look at it.

    Time in which nobody looked counts as two looks at most: a process that was stopped (an app that
    is frozen in the background) could not wait.

    Args:
        age_s: at the look before, at ``looked_s`` of a clock.
    """
    return age_s + min(now_s - looked_s, 2 * LOOK_S)


class _Begun(threading.Event):
    """What a thread sets when it runs, and whoever starts it waits for.

    A signal handler may fork meanwhile. In the child the thread does not exist, and whoever goes on
    there, where the handler returned, would wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()

    def wait(self, timeout: float | None = None) -> bool:
        """As an event's own.

        Raises:
            RuntimeError: this is a forked child.
        """
        while not super().wait(LOOK_S if timeout is None else timeout):
            if os.getpid() != self._process:
                raise RuntimeError("this process was forked while it was started")
            if timeout is not None:
                return False
        return True


def start_thread(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        RunError: the system starts no more, or this is a forked child by now; nothing of this one
            is left.
    """
    process = os.getpid()
    thread._started = _Begun()  # type: ignore[attr-defined]
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        if os.getpid() != process:
            raise RunError(
                f"the thread {thread.name!r} belongs to process {process}, which this one was "
                "forked from: open an engine after the fork"
            ) from error
        raise RunError(
            f"the thread {thread.name!r} cannot be started ({error or 'out of memory'}): the limit "
            "of threads (`ulimit -u`, or of the container) or of memory (`ulimit -v`) is reached; "
            "raise it, or end other programs"
        ) from error


def in_time(
    work: Callable[[], T], timeout_s: float, *, unwanted: Callable[[T], None] | None = None
) -> T:
    """Do something on a thread of its own, which is left to itself if it takes too long.

    Args:
        work: writes to nothing of the caller's.
        unwanted: is given what comes too late.

    Raises:
        What ``work`` raises.
        TimeoutError: it takes longer.
        RunError: no thread can be started.
    """
    found: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()
    waiting = [True]

    def run() -> None:
        try:
            found.put(work())
        except BaseException as error:
            found.put(error)
        if not waiting:
            discard()

    def discard() -> None:
        """Whoever comes last finds what nobody takes."""
        with suppress(queue.Empty):
            late = found.get_nowait()
            if unwanted is not None and not isinstance(late, BaseException):
                unwanted(late)

    start_thread(threading.Thread(target=run, name="sti-opening", daemon=True))
    try:
        gave = _waited(found, timeout_s)
    except BaseException:
        waiting.clear()
        discard()
        raise
    if isinstance(gave, BaseException):
        raise gave
    return gave


def _waited(found: queue.SimpleQueue[T], timeout_s: float) -> T:
    """What is put within the time, of which only that counts in which the process could wait."""
    age_s, looked_s = 0.0, monotonic()
    while True:
        with suppress(queue.Empty):
            return found.get(timeout=min(LOOK_S, timeout_s - age_s))
        now_s = monotonic()
        age_s, looked_s = older(age_s, looked_s, now_s), now_s
        if age_s >= timeout_s:
            raise TimeoutError
