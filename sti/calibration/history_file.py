"""The history of a pack's runs on this machine, kept beside its device profile.

In: what happened since the last write. Out: the file of the pack, with that added; what could not
be kept, as words. Several processes may add at once: each holds a lock while it reads, adds and
replaces. Nothing is kept where ``$STI_HISTORY`` is ``off``. Only the user may read the files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sti.calibration.cache import HISTORY_VARIABLE, OFF, Cache, Key
from sti.device.identity import machine_key
from sti.device.user_places import why_not
from sti.errors import ProfileError
from sti.planning.history import History
from sti.planning.history_json import history_json, read_history
from sti.storage.atomic_file import replacing
from sti.storage.file_lock import locked, patience
from sti.storage.json_input import JsonLimits, parse_json
from sti.storage.own_files import make_directory

MOST_DAYS = 90
"""Days that are kept."""
MOST_PACKS = 64
"""Packs of which a history is kept; beyond that, those that ran longest ago are deleted."""
LIMITS = JsonLimits(4 << 20, 1 << 18, 8)
"""Days, each with targets and classes of times, and the spans of one run."""
LONGEST_WAIT_S = 2.0
"""Seconds after which a run that was written meanwhile may get lost."""
_POLL_S = 0.005
_DAY_S = 86_400.0


def history_files(cache: Cache) -> list[Path]:
    """The files of all packs, the one that was written last at the end."""
    found = []
    for path in cache.directory.glob("history-*.json"):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except OSError:  # deleted just now
            continue
    return [path for _, path in sorted(found)]


class HistoryFile:
    """The history of one pack. Safe to use from several threads and processes at once.

    Args:
        pack_id: of the pack.
        cache: where it is kept; the user's cache by default.
    """

    def __init__(self, pack_id: str, cache: Cache | None = None) -> None:
        self._cache = cache or Cache()
        self._key: Key = {"pack": pack_id, "machine": machine_key()}
        self.path = self._cache.path("history", self._key)

    def read(self) -> History:
        """What is kept; an empty history where there is none.

        Raises:
            ProfileError: the file is damaged, of another release, or cannot be read; names it.
        """
        try:
            text = self._cache.read(self.path, LIMITS.most_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return History()
        except OSError as error:
            raise ProfileError(f"{self.path}: cannot be read: {error.strerror}") from error
        try:
            document = parse_json(text, LIMITS)
        except ValueError as error:
            raise ProfileError(f"{self.path}: not a history: {error}") from error
        value = document.get("value") if isinstance(document, dict) else None
        return read_history(value, where=str(self.path))

    def add(self, new: History) -> str | None:
        """Add what is new, and forget what is old; what the user should know, if anything is.

        A file that cannot be used is begun anew.
        """
        told = None
        try:
            with self._locked():
                try:
                    before = self.read()
                except ProfileError as error:
                    before, told = History(), f"{error}; the history of this pack begins anew"
                now = time.time()
                # The clock may have been wrong: what lies far ahead goes as well.
                oldest, newest = day_at(now - (MOST_DAYS - 1) * _DAY_S), day_at(now + _DAY_S)
                self._write(before.plus(new).bounded(oldest, newest), now)
        except OSError as error:
            if self._cache.fails_first():
                told = (
                    f"how runs went cannot be kept {why_not(self._cache.directory, error)} "
                    f"({HISTORY_VARIABLE}={OFF} keeps nothing)"
                )
        return told

    def _write(self, history: History, now: float) -> None:
        document = {"key": self._key, "measured_at": now, "value": history_json(history)}
        text = json.dumps(document, allow_nan=False, separators=(",", ":"))
        with replacing(self.path, private=True) as stream:
            stream.write(text.encode("utf-8") + b"\n")
        for old in history_files(self._cache)[:-MOST_PACKS]:
            old.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """While nobody else adds, or has been waited for long enough."""
        make_directory(self._cache.directory)
        with ExitStack() as stack:
            with suppress(OSError):
                wait = patience(LONGEST_WAIT_S, poll_s=_POLL_S)
                stack.enter_context(locked(self._cache.directory / "history.lock", wait))
            yield


def day_at(seconds: float) -> str:
    """The day of a time since the epoch, of the user's calendar."""
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
