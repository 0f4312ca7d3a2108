"""How much of this machine's free memory may be taken at once."""

from __future__ import annotations

import math

from sti.device import host
from sti.errors import InfeasibleError

MEMORY_SHARE = 0.5
"""Of the memory that is free, how much a preload buffer or a batch may take."""


def check_memory(needed: int, *, what: str, remedy: str, limit: str) -> None:
    """Refuse what would take more than its share of the memory that is free.

    Args:
        needed: bytes.
        what: what takes them, in front of the message.
        remedy: what to do about it, at its end.
        limit: the limit of the error, ``"preload"`` or ``"memory"``.

    Raises:
        InfeasibleError: it would; ``needed`` is the memory that would have to be free. Never where
            the system does not tell its memory.
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
