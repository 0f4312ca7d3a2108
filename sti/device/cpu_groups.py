"""The processor time that cgroups allow this process: its own group's and those of groups above.

In: the groups' files, of version 1 and 2. Out: how many cores' worth of time all threads of this
process may take, with whatever else is in the groups; None without a quota. Which cores may be used
is not asked here: the scheduler tells (``host.cores``).
"""

from __future__ import annotations

from pathlib import Path

from sti.device.control_groups import Group, groups
from sti.device.system_files import read_number, read_text, whole_number


def cpu_quota(root: Path) -> float | None:
    """Cores' worth of time, the least that any group allows; above zero.

    Args:
        root: below it lie ``proc`` and ``sys``.
    """
    return min(filter(None, map(_quota_of, groups(root, "cpu"))), default=None)


def _quota_of(group: Group) -> float | None:
    """Quota over period: microseconds of processor time in so many of time."""
    if group.version == 2:
        words = (read_text(group.place / "cpu.max") or "").split()
        parts = [whole_number(word) for word in words]
    else:
        parts = [read_number(group.place / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    if len(parts) != 2:
        return None
    quota, period = parts
    return quota / period if quota and period else None
