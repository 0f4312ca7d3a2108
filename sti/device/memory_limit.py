"""The limit on how much of this machine's free memory may be taken at once.

In: bytes needed. Out: nothing, or an error that names the limit. Asks the system for free memory.
"""

from __future__ import annotations

import math

from sti.device import host
from sti.errors import InfeasibleError

MEMORY_SHARE = 0.5
"""Share of the free memory that a preload buffer or a batch may take."""


def check_memory(needed: int, *, what: str, remedy: str, limit: str) -> None:
    """Refuse to take more than ``MEMORY_SHARE`` of the memory that is free.

    Args:
        needed: bytes.
        what: what takes them, the start of the message.
        remedy: what to do about it, the end of the message.
        limit: the limit of the error, ``"preload"`` or ``"memory"``.

    Raises:
        InfeasibleError: too much is needed; the error's ``needed`` is the memory that would have to
            be free. Never raised where the system does not say how much is free.
    """
    available = host.memory().available_bytes
    if available is not None and needed > available * MEMORY_SHARE:
        raise InfeasibleError(
            f"{what} {needed} bytes, more than half of the {available} bytes of memory that are "
            f"free; {remedy}",
            limit=limit,
            asked=needed,
            needed=math.ceil(needed / MEMORY_SHARE),
        )
