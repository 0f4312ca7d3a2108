"""Limits that memory cgroups set on this process: its own group's and those of the groups above.

In: ``/proc/self/cgroup`` and the groups' files below ``/sys/fs/cgroup``, of version 1 and 2. Out:
for each group with a limit, the limit and what is left of it. Nothing where there are no groups, or
where they cannot be read. No pressure files are read, and swap is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sti.device.system_files import read_number, read_text, read_words

_MOUNT = Path("sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2 ** 63 where there is no limit."""


class GroupLimit(NamedTuple):
    """The memory that one group allows, in bytes."""

    limit_bytes: int
    left_bytes: int


class _Version(NamedTuple):
    """How a version of cgroups names things."""

    controller: str
    """Of its line in ``/proc/self/cgroup``."""
    mount: Path
    limits: tuple[str, ...]
    used: str
    cached: str


_VERSIONS = (
    # Above ``memory.high`` a group is slowed down, and its memory is taken back.
    _Version("", _MOUNT, ("memory.max", "memory.high"), "memory.current", "inactive_file"),
    _Version(
        "memory",
        _MOUNT / "memory",
        ("memory.limit_in_bytes",),
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def group_limits(root: Path) -> Iterator[GroupLimit]:
    """The limits of this process's group and of all above it that can be seen, nearest first.

    Args:
        root: below it lie ``proc`` and ``sys``.
    """
    own = _own_groups(root)
    for version in _VERSIONS:
        for group in _upward(root / version.mount, own.get(version.controller, "/")):
            found = _limit_of(group, version)
            if found is not None:
                yield found


def _limit_of(group: Path, version: _Version) -> GroupLimit | None:
    limits = (read_number(group / name) for name in version.limits)
    limit = min((found for found in limits if found is not None), default=_NO_LIMIT)
    if limit >= _NO_LIMIT:
        return None
    used = read_number(group / version.used)
    if used is None:
        return GroupLimit(limit, limit)
    # Cached file pages count as used there, but make room when asked to.
    cached = read_words(group / "memory.stat").get(version.cached, 0)
    return GroupLimit(limit, max(0, limit - max(0, used - cached)))


def _own_groups(root: Path) -> dict[str, str]:
    """The group of this process by controller; version 2's by an empty name."""
    found: dict[str, str] = {}
    for line in (read_text(root / "proc" / "self" / "cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            found.update(dict.fromkeys(parts[1].split(","), parts[2]))
    return found


def _upward(mount: Path, own: str) -> Iterator[Path]:
    """The group ``own`` and those above it, as far as they can be seen under a mount.

    In a container the group may be named as the host sees it, which the container cannot: what is
    mounted is its own group then.
    """
    names = [name for name in PurePosixPath(own).parts if name != "/"]
    if ".." not in names:  # a group outside what this process may see
        for count in range(len(names), 0, -1):
            yield mount.joinpath(*names[:count])
    yield mount
