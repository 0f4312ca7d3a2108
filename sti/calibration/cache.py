"""Device profiles, thread counts, staircases and plans, kept in the user's cache directory.

In: a key with everything that an entry depends on: machine and software for all measurements,
shapes and graphs for profiles, the device for storage; pack, profile, workload and target for
plans. Out: the entry, and for measurements when they were made, or None. A cache that
cannot be read or written causes a warning (for plans, not even that) and nothing else; and so does
a file or a directory that others than the user could have written, for what is kept here steers
runs; the next write makes a directory of the user's own private again. Files are written under a
temporary name and renamed, so that a reader never sees half of one; only the user may read them.
"""

from __future__ import annotations

import errno
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sti.calibration.kept import Kept, StoragePart
from sti.device.profile import PROFILE_VERSION, DeviceProfile
from sti.device.user_places import user_directory, why_not
from sti.errors import PlanError, ProfileError, StiWarning
from sti.planning.plan import PLAN_LIMITS, Plan
from sti.storage.atomic_file import replacing
from sti.storage.digest import sha256
from sti.storage.drafts import remove_all_abandoned_drafts
from sti.storage.json_input import parse_json
from sti.storage.own_files import check_private, make_directory, read_own

Key = Mapping[str, Any]

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

HISTORY_VARIABLE, OFF = "STI_HISTORY", "off"
"""The environment variable, and its value, with which no history of runs is kept."""
MOST_PLANS = 256
"""Plans kept; beyond that, the oldest are deleted."""
MOST_CORRECTIONS = 64
"""Corrections kept, likewise."""
MOST_STAIRCASES = 32
"""Packs whose staircases are kept, likewise."""
_MOST_STAIRCASE_BYTES = 1 << 24
_MOST_TIME = 253_402_300_799.0
"""Seconds since the epoch at the end of the last year that calendars know, 9999."""

_UNWRITABLE: set[str] = set()
"""Directories that could not be written, and that the user was told of."""
_NOT_PRIVATE: set[str] = set()
"""Directories that others may write to, likewise."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/sti``, else ``~/.cache/sti``; it need not exist, and it may be none."""
    return user_directory("XDG_CACHE_HOME", ".cache") / "sti"


def keeps_history() -> bool:
    """Whether the user lets it be kept how runs went (``sti.calibration.history_file``)."""
    return os.environ.get(HISTORY_VARIABLE, "").strip().lower() != OFF


class _Parser(Protocol[R_co]):
    def __call__(self, value: object, /, *, where: str) -> R_co: ...


class Cache:
    """A cache directory. Safe to use from several processes at once.

    Args:
        directory: where the files are kept; the user's cache directory by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or cache_directory()

    def fails_first(self) -> bool:
        """Whether this is the first time in this process that the directory cannot be written.

        For messages: one of them is enough.
        """
        return self._is_new_in(_UNWRITABLE)

    def _is_new_in(self, told: set[str]) -> bool:
        """Whether the user was not told of the directory before; from now on they are."""
        known = str(self.directory) in told
        told.add(str(self.directory))
        return not known

    def path(self, kind: str, key: Key) -> Path:
        """The file of an entry."""
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.directory / f"{kind}-{digest[:16]}.json"

    def read(self, path: Path, most: int) -> bytes:
        """What a file of the cache holds: ``read_own``, in a directory of the user's own.

        Raises:
            OSError: it is not so; ``FileNotFoundError``, with one warning in this process, for a
                directory that someone else may write to.
        """
        try:
            check_private(self.directory)
        except PermissionError as error:
            if self._is_new_in(_NOT_PRIVATE):
                warnings.warn(
                    f"{self.directory}: is ignored, with all that it keeps: {error.strerror} "
                    "(make it yours alone, or set XDG_CACHE_HOME to another directory)",
                    StiWarning,
                    stacklevel=4,
                )
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        return read_own(path, most)

    def load_profile(self, key: Key) -> Kept[DeviceProfile] | None:
        """The profile stored under ``key``; None, with a warning, for a file that is damaged."""
        return self._load_kept(self.path("profile", key), DeviceProfile.from_json)

    def store_profile(self, key: Key, profile: DeviceProfile) -> Path | None:
        """Store a profile; returns its file, or None, with a warning, where that failed."""
        return self._store(self.path("profile", key), key, profile.to_json())

    def load_storage(self, key: Key) -> Kept[StoragePart] | None:
        """The storage lane stored under ``key``, as ``load_profile`` does a profile."""
        return self._load_kept(self.path("storage", key), StoragePart.from_json)

    def store_storage(self, key: Key, part: StoragePart) -> Path | None:
        """Store a storage lane, as ``store_profile`` does a profile."""
        return self._store(self.path("storage", key), key, part.to_json())

    def tried(self, path: Path) -> None:
        """Note that an entry was measured again now and not replaced."""
        with suppress(OSError):
            os.utime(path)

    def load_threads(self, key: Key) -> int | None:
        """The thread count stored under ``key``; None, with a warning, for a damaged file."""
        path = self.path("threads", key)
        value = self._load(path)
        if value is None or (type(value) is int and value >= 1):
            return value
        _warn_damaged(path, ValueError(f"{value!r:.60} is not a number of threads"))
        return None

    def store_threads(self, key: Key, threads: int) -> Path | None:
        """Store a thread count, as ``store_profile`` does a profile."""
        return self._store(self.path("threads", key), key, threads)

    def load_staircases(self, key: Key) -> bytes | None:
        """The bytes stored under ``key``, which whoever asks has to check; None where there are
        none that can be read.
        """
        try:
            return self.read(
                self.path("staircases", key).with_suffix(".bin"), _MOST_STAIRCASE_BYTES
            )
        except OSError:
            return None

    def store_staircases(self, key: Key, raw: bytes) -> None:
        """Store bytes. Silent where that fails, as ``store_plan``."""
        path = self.path("staircases", key).with_suffix(".bin")
        with suppress(OSError):
            self._replace(path, raw)
            found = sorted(
                self.directory.glob("staircases-*.bin"), key=lambda p: p.stat().st_mtime_ns
            )
            for old in found[:-MOST_STAIRCASES]:
                old.unlink(missing_ok=True)

    def load_plan(self, key: Key) -> Plan | None:
        """The plan stored under ``key``; None, without a warning, for a damaged file."""
        path = self.path("plan", key)
        try:
            return Plan.from_json(self._read(path), where=str(path))
        except (OSError, ValueError, PlanError):
            return None

    def store_plan(self, key: Key, plan: Plan) -> None:
        """Store a plan. Silent where that fails: ``store_profile`` has warned already."""
        self._store_silently("plan", key, plan.to_json(), most=MOST_PLANS)

    def load_corrections(self, key: Key) -> object | None:
        """The corrections stored under ``key``; None, without a warning, for a damaged file."""
        try:
            return self._read(self.path("corrections", key))
        except (OSError, ValueError):
            return None

    def store_corrections(self, key: Key, value: object) -> None:
        """Store corrections; silent where that fails, and oldest first out, as ``store_plan``."""
        self._store_silently("corrections", key, value, most=MOST_CORRECTIONS)

    def profiles(self) -> Iterator[Kept[DeviceProfile]]:
        """Every readable profile, sorted by file name; older versions are skipped."""
        yield from self._all("profile", DeviceProfile.from_json)

    def storages(self) -> Iterator[Kept[StoragePart]]:
        """Every readable storage lane, as ``profiles``."""
        yield from self._all("storage", StoragePart.from_json)

    def _all(self, kind: str, parse: _Parser[T]) -> Iterator[Kept[T]]:
        try:
            paths = sorted(self.directory.glob(f"{kind}-*.json"))
        except OSError:
            return
        for path in paths:
            found = self._load_kept(path, parse, skip_older=True)
            if found is not None:
                yield found

    def _load_kept(
        self, path: Path, parse: _Parser[T], *, skip_older: bool = False
    ) -> Kept[T] | None:
        """An entry with its times."""
        try:
            document = self._document(path)
            value = document.get("value") if isinstance(document, dict) else None
            if value is None or (skip_older and _is_older(value)):
                return None
            measured_at, found = document.get("measured_at"), parse(value, where=str(path))
            is_time = type(measured_at) in (int, float) and 0.0 <= measured_at <= _MOST_TIME
            return Kept(path, found, measured_at if is_time else 0.0, path.stat().st_mtime)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, OverflowError, ProfileError) as error:
            _warn_damaged(path, error)
            return None

    def _load(self, path: Path) -> Any | None:
        try:
            return self._read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            _warn_damaged(path, error)
            return None

    def _read(self, path: Path) -> Any | None:
        document = self._document(path)
        return document.get("value") if isinstance(document, dict) else None

    def _document(self, path: Path) -> Any:
        return parse_json(self.read(path, PLAN_LIMITS.most_bytes), PLAN_LIMITS)

    def _store(self, path: Path, key: Key, value: object) -> Path | None:
        try:
            self._write(path, key, value)
        except OSError as error:
            if self.fails_first():
                warnings.warn(
                    f"measurements cannot be kept {why_not(self.directory, error)}; it will be "
                    "measured again next time (set XDG_CACHE_HOME to a directory you may write)",
                    StiWarning,
                    stacklevel=4,
                )
            return None
        return path

    def _store_silently(self, kind: str, key: Key, value: object, *, most: int) -> None:
        """Store an entry and delete the oldest beyond ``most``."""
        try:
            self._write(self.path(kind, key), key, value)
            found = sorted(
                self.directory.glob(f"{kind}-*.json"), key=lambda p: p.stat().st_mtime_ns
            )
            for old in found[:-most]:
                old.unlink(missing_ok=True)
        except OSError:
            return

    def _write(self, path: Path, key: Key, value: object) -> None:
        """Replace a file as a whole; nothing is left where that fails."""
        now = time.time()
        text = json.dumps({"key": key, "measured_at": now, "value": value}, allow_nan=False)
        self._replace(path, text.encode("utf-8") + b"\n")
        with suppress(OSError):
            os.utime(path, (now, now))  # a later time says that it was tried to replace it

    def _replace(self, path: Path, raw: bytes) -> None:
        """Replace a file, and remove what processes that were killed left of any."""
        make_directory(self.directory)
        remove_all_abandoned_drafts(self.directory)
        with replacing(path, private=True) as stream:
            stream.write(raw)


def _is_older(profile: object) -> bool:
    version = profile.get("profile") if isinstance(profile, dict) else None
    return isinstance(version, int) and version < PROFILE_VERSION


def _warn_damaged(path: Path, error: Exception) -> None:
    told = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path}: ")
    warnings.warn(f"{path}: cannot be used, and is ignored: {told}", StiWarning, stacklevel=4)
