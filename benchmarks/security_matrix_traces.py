"""What a cell of the fault matrix leaves behind: threads and descriptors of this process.

In: what there was before. Out: the names of what is there since. Knows nothing of cells.
"""

from __future__ import annotations

import gc
import os
import threading
from time import perf_counter, sleep

_GRACE_S = 2.0


class Before:
    """What there is now."""

    def __init__(self) -> None:
        gc.collect()
        self._threads, self._descriptors = set(threading.enumerate()), _descriptors()

    def left(self) -> str:
        """The names of what is there since, and does not end within a while; "" for nothing."""
        end, names = perf_counter() + _GRACE_S, self._since()
        while names and perf_counter() < end:
            sleep(0.01)
            names = self._since()
        return ", ".join(names)

    def _since(self) -> list[str]:
        gc.collect()
        names = [item.name for item in threading.enumerate() if item not in self._threads]
        found = _descriptors().items()
        return names + [name for number, name in found if number not in self._descriptors]


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the listing itself
    return found
