"""How long threads waited for a core: what the scheduler counts, thread by thread.

In: native thread ids (``threading.get_native_id``), and ``/proc/self/task/ID/schedstat`` below
``sti.device.host.ROOT``. Out: seconds that threads were ready to run and another one had the core,
or that they had one, counted since they began; two readings and the wall time between them say what
share of it a thread waited. None where the system does not say: Android denies some of ``/proc``,
some kernels count nothing, other systems have no such file. Never raises. One reading costs about
10 us a thread, or 2 us where the file is kept open (``WaitCounter``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from sti.device import host

_RAN, _WAITED = 0, 1
_MOST_BYTES = 100
"""Of a thread's file."""


def waited_s(threads: Sequence[int]) -> float | None:
    """Seconds that these threads waited in the run queue so far, all of them together.

    Args:
        threads: native ids of threads of this process; none of them gives 0.

    Returns:
        None where the system does not say, or one of the threads has ended.
    """
    return _total_s(threads, _WAITED)


def ran_s(threads: Sequence[int]) -> float | None:
    """Seconds that these threads were on the processor so far; as ``waited_s``."""
    return _total_s(threads, _RAN)


class WaitCounter:
    """What one thread waited so far, asked again and again: its file stays open until ``close``.

    Args:
        thread: native id of a thread of this process.

    Thread-safe, but for ``close``.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, thread: int) -> None:
        self._descriptor: int | None = None
        with suppress(OSError):
            self._descriptor = os.open(_path(str(thread)), os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> float | None:
        """Seconds; None where the system does not say, the thread has ended, or after ``close``."""
        if self._descriptor is None:
            return None
        try:
            return _seconds(os.pread(self._descriptor, _MOST_BYTES, 0), _WAITED)
        except OSError:
            return None

    def close(self) -> None:
        """Give back the descriptor. Idempotent."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with suppress(OSError):  # somebody closed it, which was not theirs
                os.close(descriptor)


def _path(thread: str) -> str:
    return f"{host.ROOT}/proc/self/task/{thread}/schedstat"


def _total_s(threads: Sequence[int], word: int) -> float | None:
    total = 0.0
    for thread in threads:
        found = _schedstat(str(thread), word)
        if found is None:
            return None
        total += found
    return total


def _schedstat(thread: str, word: int) -> float | None:
    """Seconds of a thread: one of the first two numbers of its file."""
    try:
        with open(_path(thread), "rb", buffering=0) as file:
            return _seconds(file.read(_MOST_BYTES), word)
    except OSError:
        return None


def _seconds(text: bytes, word: int) -> float | None:
    """One of the first two of three numbers, in nanoseconds."""
    words = text.split()
    # A kernel that does not count says "0 0 0"; a thread that asks has run before.
    if len(words) != 3 or not all(each.isdigit() for each in words) or words[2] == b"0":
        return None
    return int(words[word]) * 1e-9
