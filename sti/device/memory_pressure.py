"""Whether memory is short: for the machine, or for the memory cgroups that this process is in.

In: what is available of each limit (``host.memory_limits``: ``MemAvailable`` of ``/proc/meminfo``,
and usage and limits of cgroups). Out: whether that is too little, and whether it is enough again.
Each limit is judged alone, and the nearest one decides. Where the system does not say, memory is
never short. No pressure files are read: Android denies them. Pure, but for ``look``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.device import host
from sti.device.host import Memory

SHORT_SHARE = 1 / 16
"""Memory is short where less than this share of a limit is available.

64 MB of 1 GB, about what Linux needs to work without reading programs again and again; 4 MB of a
cgroup of 64 MB, in which a Python process with this package can still work: it is a share of the
limit, so that a small group is not short at all times.
"""
MOST_SHORT_BYTES = 256_000_000
"""With more available, memory is not short on a machine of any size: this engine could give back
little in comparison."""
RECOVERED = 2.0
"""Times that much has to be available, beyond what the engine would take again, until memory is no
longer short. Else what is given back would be taken again at once."""


def look() -> tuple[Memory, ...]:
    """What is available of each limit whose figures are known, now."""
    return tuple(
        item
        for item in host.memory_limits()
        if item.total_bytes is not None and item.available_bytes is not None
    )


def short_below(total_bytes: int) -> float:
    """Bytes: with less available of a limit of ``total_bytes``, memory is short."""
    return min(SHORT_SHARE * total_bytes, MOST_SHORT_BYTES)


def is_short(limits: Sequence[Memory]) -> bool:
    """Whether too little is available of any limit."""
    return any(_share_left(item) < 1.0 for item in limits)


def has_recovered(limits: Sequence[Memory], wanted_bytes: int = 0) -> bool:
    """Whether enough is available of every limit for ``wanted_bytes`` to be taken again."""
    return all(_share_left(item, wanted_bytes) >= RECOVERED for item in limits)


def nearest(limits: Sequence[Memory]) -> Memory | None:
    """The limit that is nearest; None where none is known."""
    return min(limits, key=_share_left, default=None)


def _share_left(item: Memory, wanted_bytes: int = 0) -> float:
    """What is available, over that below which memory is short."""
    total, available = item.total_bytes, item.available_bytes
    if not total or available is None:  # unknown
        return float("inf")
    return (available - wanted_bytes) / short_below(total)
