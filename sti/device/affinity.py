"""Binding compute and decode to a core each, on machines with two cores.

In: two cores and a thread. Out: nothing; the threads are bound for the duration of a run. Threads
that slept are often woken on the same core and share it for many milliseconds, which on two cores
costs a fifth of a run's time (docs/experiments.md); with more cores than busy threads the scheduler
does well by itself. Nothing here raises: Android may refuse, and some systems have no such call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_CALLER = 0
"""The calling thread, for the system call."""
_BOUND = threading.Lock()
"""Held while a run in this process has its threads bound."""


@contextmanager
def apart(cores: Sequence[int], thread: int) -> Iterator[None]:
    """Keep the calling thread on the first of two cores, and ``thread`` on the second.

    Afterwards both may run on either core again. Only one run in a process is bound at a time; two
    runs bound to the same cores would be slower than unbound ones.

    Args:
        cores: two cores. Nothing is done unless the calling thread may run on exactly these: if
            somebody restricted it to other cores, that choice stands.
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
