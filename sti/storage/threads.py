"""Starting threads where the system may refuse, and work that may never return.

In: a thread, or work. Effect: it runs, or an error names the limits there are. Knows nothing of
what it does.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from sti.errors import RunError

T = TypeVar("T")


def start_thread(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        RunError: the system starts no more; nothing of this one is left.
    """
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
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
            gave: T | BaseException = work()
        except BaseException as error:
            gave = error
        if waiting:
            found.put(gave)
        elif unwanted is not None and not isinstance(gave, BaseException):
            unwanted(gave)

    start_thread(threading.Thread(target=run, name="sti-opening", daemon=True))
    try:
        gave = found.get(timeout=min(timeout_s, threading.TIMEOUT_MAX))
    except queue.Empty:
        raise TimeoutError from None
    finally:
        waiting.clear()
    if isinstance(gave, BaseException):
        raise gave
    return gave
