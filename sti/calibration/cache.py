"""Device profiles, thread counts and plans kept between runs, in the user's cache directory.

In: a key with everything that an entry depends on: machine, software, graphs and storage for
measurements; pack, profile, workload and target for plans. Out: the entry, or None. A cache that
cannot be read or written causes a warning (for plans, not even that) and nothing else. Files are
written under a temporary name and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sti.device.profile import PROFILE_VERSION, DeviceProfile
from sti.errors import PlanError, ProfileError, StiWarning
from sti.planning.plan import Plan
from sti.storage.atomic_file import replacing
from sti.storage.digest import sha256

Key = Mapping[str, Any]

MOST_PLANS = 256
"""Plans kept; beyond that, the oldest are deleted."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/sti``, else ``~/.cache/sti``; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~/.cache"))) / "sti"


class Cache:
    """A cache directory. Safe to use from several processes at once.

    Args:
        directory: where the files are kept; the user's cache directory by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or cache_directory()

    def path(self, kind: str, key: Key) -> Path:
        """The file of an entry."""
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.directory / f"{kind}-{digest[:16]}.json"

    def load_profile(self, key: Key) -> DeviceProfile | None:
        """The profile stored under ``key``; None, with a warning, for a file that is damaged."""
        path = self.path("profile", key)
        value = self._load(path)
        try:
            return None if value is None else DeviceProfile.from_json(value, where=str(path))
        except ProfileError as error:
            _warn_damaged(path, error)
            return None

    def store_profile(self, key: Key, profile: DeviceProfile) -> Path | None:
        """Store a profile; returns its file, or None, with a warning, where that failed."""
        return self._store(self.path("profile", key), key, profile.to_json())

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

    def load_plan(self, key: Key) -> Plan | None:
        """The plan stored under ``key``; None, without a warning, for a damaged file."""
        path = self.path("plan", key)
        try:
            return Plan.from_json(self._read(path), where=str(path))
        except (OSError, ValueError, RecursionError, PlanError):
            return None

    def store_plan(self, key: Key, plan: Plan) -> None:
        """Store a plan. Silent where that fails: ``store_profile`` has warned already."""
        path = self.path("plan", key)
        try:
            self._write(path, key, plan.to_json())
            found = sorted(self.directory.glob("plan-*.json"), key=lambda p: p.stat().st_mtime_ns)
            for old in found[:-MOST_PLANS]:
                old.unlink(missing_ok=True)
        except OSError:
            return

    def profiles(self) -> Iterator[tuple[Path, DeviceProfile]]:
        """Every readable profile and its file, sorted by file name; older versions are skipped."""
        try:
            paths = sorted(self.directory.glob("profile-*.json"))
        except OSError:
            return
        for path in paths:
            value = self._load(path)
            try:
                if value is not None and not _is_older(value):
                    yield path, DeviceProfile.from_json(value, where=str(path))
            except ProfileError as error:
                _warn_damaged(path, error)

    def _load(self, path: Path) -> Any | None:
        try:
            return self._read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            _warn_damaged(path, error)
            return None

    def _read(self, path: Path) -> Any | None:
        document = json.loads(path.read_bytes())
        return document.get("value") if isinstance(document, dict) else None

    def _store(self, path: Path, key: Key, value: object) -> Path | None:
        try:
            self._write(path, key, value)
        except OSError as error:
            warnings.warn(
                f"measurements cannot be kept in {self.directory}: {error.strerror}; it will "
                "be measured again next time (set XDG_CACHE_HOME to a directory you may write)",
                StiWarning,
                stacklevel=4,
            )
            return None
        return path

    def _write(self, path: Path, key: Key, value: object) -> None:
        """Replace a file as a whole; nothing is left where that fails."""
        text = json.dumps({"key": key, "value": value}, allow_nan=False)
        self.directory.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.write(text.encode("utf-8") + b"\n")


def _is_older(profile: object) -> bool:
    version = profile.get("profile") if isinstance(profile, dict) else None
    return isinstance(version, int) and version < PROFILE_VERSION


def _warn_damaged(path: Path, error: Exception) -> None:
    told = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path}: ")
    warnings.warn(f"{path}: cannot be used, and is ignored: {told}", StiWarning, stacklevel=4)
