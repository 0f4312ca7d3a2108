"""Binding compute and decode to a core each, on machines with two cores.

In: two cores and a thread. Out: nothing; the threads are bound for the duration of a run. Threads
that slept are often woken on the same core and share it for many milliseconds, which on two cores
costs a fifth of a run's time (docs/experiments.md); with more cores than busy threads the scheduler
does well by itself. Beside busy processes a bound thread waits for its core while the other one is
free: runs then took two to three times as long as unbound ones, so ``Binding`` stops for a while.
Nothing here raises: Android may refuse, and some systems have no such call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from sti.device.profile import MOST_DISTURBED

T = TypeVar("T")

_CALLER = 0
"""The calling thread, for the system call."""
_BOUND = threading.Lock()
"""Held while a run in this process has its threads bound."""

_LONGEST_WAIT_S = 0.5
"""Seconds that finding out about a thread waits for another run."""
_THREADS = "/proc/self/task"
"""Lists the threads of this process."""

_FIRST_PAUSE, _LONGEST_PAUSE = 8, 128
"""Runs without binding after the first one, and after many, that waited although it was bound."""


class Binding:
    """Whether the next run is worth binding; learns from how long bound runs waited for a core.

    Unbound threads may wait for one another, which says nothing of other processes; so binding is
    tried again now and then, after pauses that double each time that it still waits.
    """

    def __init__(self) -> None:
        self._pause, self._left = _FIRST_PAUSE, 0

    def wanted(self) -> bool:
        """Whether to bind the next run; called once for each."""
        self._left -= 1
        return self._left < 0

    def learn(self, waited_share: float | None) -> None:
        """A bound run is over.

        Args:
            waited_share: of it the thread waited that waited longer; None: the system does not say.
        """
        if waited_share is None or waited_share <= MOST_DISTURBED:
            self._pause, self._left = _FIRST_PAUSE, 0
            return
        self._left, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)


@contextmanager
def apart(cores: Sequence[int], thread: int) -> Iterator[bool]:
    """Keep the calling thread on the first of two cores, and ``thread`` on the second.

    Afterwards both may run on either core again. Only one run in a process is bound at a time; two
    runs bound to the same cores would be slower than unbound ones. Gives whether they are bound.

    Args:
        cores: two cores. Nothing is done unless the calling thread may run on exactly these: if
            somebody restricted it to other cores, that choice stands.
        thread: a native thread id.
    """
    if not (_is_usual(cores) and _BOUND.acquire(blocking=False)):
        yield False
        return
    done = False
    try:
        with suppress(OSError):
            os.sched_setaffinity(thread, {cores[1]})
            os.sched_setaffinity(_CALLER, {cores[0]})
            done = True
        yield done
    finally:
        for bound in (thread, _CALLER):
            with suppress(OSError):
                os.sched_setaffinity(bound, set(cores))
        _release()


def _release() -> None:
    with suppress(RuntimeError):  # it was let go of in a child that was forked meanwhile
        _BOUND.release()


def started_thread(cores: Sequence[int], start: Callable[[], T]) -> tuple[T, int | None]:
    """Call what starts one thread, and find out which one that is: for ``apart``.

    Libraries do not tell. But a thread is born bound to what its maker is bound to, so the caller
    is bound to the second of two cores meanwhile, and the new thread that may run there alone is
    the one; both may run on either core again afterwards. Waits up to half a second for a run whose
    threads are bound: not longer, as that run may be waiting for this thread.

    Args:
        cores: two cores; as of ``apart``.

    Returns:
        What ``start`` returned, and the native id of the thread; None where it is not known.
    """
    if not (_is_usual(cores) and _BOUND.acquire(timeout=_LONGEST_WAIT_S)):
        return start(), None
    before = _bound_to(cores[1])
    try:
        with suppress(OSError):
            os.sched_setaffinity(_CALLER, {cores[1]})
        made = start()
    finally:
        with suppress(OSError):
            os.sched_setaffinity(_CALLER, set(cores))
        found = _bound_to(cores[1]) - before
        for thread in found:
            with suppress(OSError):
                os.sched_setaffinity(thread, set(cores))
        _release()
    return made, found.pop() if len(found) == 1 else None


def _let_go() -> None:
    """In a forked child: a run whose threads are bound stayed behind with them."""
    if _BOUND.locked():
        _BOUND.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _is_usual(cores: Sequence[int]) -> bool:
    """Whether the calling thread may run on exactly these cores."""
    return hasattr(os, "sched_setaffinity") and os.sched_getaffinity(_CALLER) == set(cores)


def _bound_to(core: int) -> set[int]:
    """Threads of this process that may run on this core alone; none where the system hides them."""
    found = set()
    with suppress(OSError):
        for name in os.listdir(_THREADS):
            with suppress(OSError):  # it may have ended
                if os.sched_getaffinity(int(name)) == {core}:
                    found.add(int(name))
    return found
