"""Compute and decode on cores of their own, on machines with two.

In: threads. Out: where they may run, while a run lasts. Threads that slept are often woken on one
and the same core and share it for many milliseconds, which on two cores costs a run a fifth of its
time (docs/experiments.md); with more cores than busy threads the scheduler does well alone. Nothing
here raises: Android may refuse, other systems have no such call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_CALLER = 0
"""The calling thread, for the system."""
_BOUND = threading.Lock()
"""Held while a run of this process has its threads bound."""


@contextmanager
def apart(cores: Sequence[int], thread: int) -> Iterator[None]:
    """Keep the calling thread on the first of two cores, and ``thread`` on the second.

    Both may run everywhere again afterwards. One run of a process at a time: two that were bound to
    the same cores would do worse than unbound.

    Args:
        cores: two cores. Where the caller may not run on just these, nothing is done: whoever
            chose other cores for it knows better.
        thread: a native thread id.
    """
    usual = hasattr(os, "sched_setaffinity") and os.sched_getaffinity(_CALLER) == set(cores)
    if not (usual and _BOUND.acquire(blocking=False)):
        yield
        return
    try:
        with suppress(OSError):
            os.sched_setaffinity(thread, {cores[1]})
            os.sched_setaffinity(_CALLER, {cores[0]})
        yield
    finally:
        for bound in (thread, _CALLER):
            with suppress(OSError):
                os.sched_setaffinity(bound, set(cores))
        _BOUND.release()
