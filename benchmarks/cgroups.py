"""Memory cgroups, of version 1 and 2: limits on what processes and their page cache may hold.

In: a limit. Out: a group of its own below this process's, or the nearest above that has room for
groups, and the words that put a command into it. Needs the right to make groups; where there is
none, or no controller, that is said. Knows nothing of what runs in a group.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
"""Below it lie ``proc`` and the mounted groups; looked up at every call, so tests may set it."""

_END_S = 5.0
_JOIN = 'echo $$ > "$0" && exec "$@"'


class Kind(NamedTuple):
    """How a version of cgroups names things."""

    file_system: str
    limit: str
    swap: str
    """Limits swap; ``beyond``: the sum of memory and swap."""
    beyond: bool


V1 = Kind("cgroup", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", beyond=True)
V2 = Kind("cgroup2", "memory.max", "memory.swap.max", beyond=False)


class NoGroups(Exception):
    """There is no memory controller here, or no right to make groups; says which."""


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[tuple[str, ...]]:
    """A group whose processes may hold ``limit_bytes`` between them, without swap.

    Yields:
        Words to put before a command, so that it runs in the group from its start.

    Raises:
        NoGroups: there can be none.
    """
    group = _made(limit_bytes)
    try:
        yield ("sh", "-c", _JOIN, str(group / "cgroup.procs"))
    finally:
        _remove(group)


def _made(limit_bytes: int) -> Path:
    reasons = []
    for kind, parent in _parents():
        group = parent / f"sti-{os.getpid()}-{time.monotonic_ns()}"
        try:
            group.mkdir()
        except OSError as error:
            reasons.append(f"{group}: {error.strerror}")
            continue
        try:
            (group / kind.limit).write_text(str(limit_bytes), encoding="ascii")
            if (group / kind.swap).exists():
                swap = limit_bytes if kind.beyond else 0
                (group / kind.swap).write_text(str(swap), encoding="ascii")
        except OSError as error:
            reasons.append(f"{group / kind.limit}: {error.strerror}")
            _remove(group)
            continue
        return group
    raise NoGroups(reasons[0] if reasons else "no memory controller of cgroups is mounted")


def _parents() -> Iterator[tuple[Kind, Path]]:
    """Where a group may be made: this process's own groups, then those above them."""
    own = _own_groups()
    for line in _lines("proc/self/mounts"):
        _, place, file_system, options, *_ = line.split()
        mount = ROOT / place.lstrip("/")
        if file_system == V1.file_system and "memory" in options.split(","):
            yield from ((V1, item) for item in _upward(mount, own.get("memory", "/")))
        elif file_system == V2.file_system:
            for item in _upward(mount, own.get("", "/")):
                # Below others, a group has no limits.
                if "memory" in _words(item / "cgroup.subtree_control"):
                    yield V2, item


def _upward(mount: Path, own: str) -> Iterator[Path]:
    """The group ``own`` and those above it, as far as they can be seen under a mount."""
    place = mount / own.lstrip("/")
    while place != mount:
        if place.is_dir():
            yield place
        place = place.parent
    yield mount


def _own_groups() -> dict[str, str]:
    """The group of this process by controller; version 2's by an empty name."""
    found = {}
    for line in _lines("proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), group))
    return found


def _remove(group: Path) -> None:
    """Remove a group once its processes are gone."""
    end = time.monotonic() + _END_S
    while True:
        empty = group / "memory.force_empty"
        if empty.exists():  # version 1 alone: else its page cache is charged to its parent
            with suppress(OSError):
                empty.write_text("0", encoding="ascii")
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _lines(name: str) -> list[str]:
    try:
        return (ROOT / name).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
