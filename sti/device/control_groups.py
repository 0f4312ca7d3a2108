"""Where the control groups (cgroups) that this process is in lie: of version 1, 2, or of both.

In: ``/proc/self/cgroup`` and ``/proc/self/mountinfo``. Out: for a controller, the directories of
this process's group and of those above it, as far as they can be seen; limits of all of them count.
Where the mounts are not told, the usual places are looked at. Nothing here raises. Knows nothing of
what the directories hold.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sti.device.system_files import read_text

_USUAL = PurePosixPath("/sys/fs/cgroup")
_ROOT = PurePosixPath("/")
_V1, _V2 = "cgroup", "cgroup2"
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class Group(NamedTuple):
    """One group with a controller."""

    version: int
    place: Path


class _Mount(NamedTuple):
    """Where a hierarchy can be seen."""

    version: int
    place: PurePosixPath
    top: PurePosixPath
    """The group that is seen there; those above it are out of sight."""


def groups(root: Path, controller: str) -> tuple[Group, ...]:
    """Groups of this process, of both versions, each followed by those above it, nearest first.

    Some of them may not have the controller, and some of the directories may not exist. Takes some
    20 us: mounts are read once, and the rest is found anew when this process is in other groups.

    Args:
        root: below it lie ``proc`` and the mounts.
        controller: ``"memory"`` or ``"cpu"``.
    """
    return _found(root, controller, read_text(root / "proc" / "self" / "cgroup") or "")


@functools.lru_cache(maxsize=8)
def _found(root: Path, controller: str, own_groups: str) -> tuple[Group, ...]:
    own, found = _own(own_groups), []
    for mount in _mounts(root, controller):
        name = own.get("" if mount.version == 2 else controller, _ROOT)
        place = root / mount.place.relative_to(_ROOT)
        found += [Group(mount.version, place / inner) for inner in _inwards(name, mount.top)]
    return tuple(found)


def _inwards(own: PurePosixPath, top: PurePosixPath) -> Iterator[PurePosixPath]:
    """A group and those above it, relative to the one that is mounted, which comes last.

    In a container a group may be named as the host sees it, of which the container cannot see all:
    what is mounted is its own group then, or one above it.
    """
    inner = own.relative_to(top) if own.is_relative_to(top) else own.relative_to(_ROOT)
    if ".." not in inner.parts:  # a group outside what this process may see
        while inner.parts:
            yield inner
            inner = inner.parent
    yield PurePosixPath()


def _own(text: str) -> dict[str, PurePosixPath]:
    """The group of this process by controller; version 2's by an empty name."""
    found: dict[str, PurePosixPath] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            # Two slashes at the start would be another root.
            found.update(dict.fromkeys(parts[1].split(","), _ROOT / parts[2].lstrip("/")))
    return found


@functools.cache
def _mounts(root: Path, controller: str) -> tuple[_Mount, ...]:
    found = []
    for line in (read_text(root / "proc" / "self" / "mountinfo") or "").splitlines():
        # 31 23 0:35 TOP PLACE rw - KIND SOURCE OPTIONS, with more words before the dash.
        before, _, after = line.partition(" - ")
        words, kind = before.split(" "), after.split(" ")
        if len(words) < 5 or len(kind) < 3 or not words[4].startswith("/"):
            continue
        place, top = (_ROOT / _plain(word).lstrip("/") for word in (words[4], words[3]))
        if kind[0] == _V2:
            found.append(_Mount(2, place, top))
        elif kind[0] == _V1 and controller in kind[2].split(","):
            found.append(_Mount(1, place, top))
    usual = (_Mount(2, _USUAL, _ROOT), _Mount(1, _USUAL / controller, _ROOT))
    return tuple(dict.fromkeys(found)) or usual


def _plain(text: str) -> str:
    for escape, plain in _ESCAPES.items():
        text = text.replace(escape, plain)
    return text
