"""Limits that memory cgroups set on this process: its own group's and those of the groups above.

In: the groups' files, of version 1 and 2. Out: for each group with a limit, the limit and what is
left of it. Nothing where there are no groups, or where they cannot be read. No pressure files are
read. Swap is not counted: a limit on memory and swap together (version 1) is one on memory too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sti.device.control_groups import groups
from sti.device.system_files import read_number, read_words

_NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2 ** 63 where there is no limit."""


class GroupLimit(NamedTuple):
    """The memory that one group allows, in bytes."""

    limit_bytes: int
    left_bytes: int


class _Files(NamedTuple):
    """How a version of cgroups names things."""

    limits: tuple[str, ...]
    used: str
    cached: str


_FILES = {
    # Above ``memory.high`` a group is slowed down, and its memory is taken back.
    2: _Files(("memory.max", "memory.high"), "memory.current", "inactive_file"),
    1: _Files(
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def group_limits(root: Path) -> Iterator[GroupLimit]:
    """The limits of this process's group and of all above it that can be seen, nearest first.

    Args:
        root: below it lie ``proc`` and ``sys``.
    """
    for group in groups(root, "memory"):
        found = _limit_of(group.place, _FILES[group.version])
        if found is not None:
            yield found


def _limit_of(group: Path, files: _Files) -> GroupLimit | None:
    limits = (read_number(group / name) for name in files.limits)
    limit = min((found for found in limits if found is not None), default=_NO_LIMIT)
    if limit >= _NO_LIMIT:
        return None
    used = read_number(group / files.used)
    if used is None:
        return GroupLimit(limit, limit)
    # Cached file pages count as used there, but make room when asked to.
    cached = read_words(group / "memory.stat").get(files.cached, 0)
    return GroupLimit(limit, max(0, limit - max(0, used - cached)))
