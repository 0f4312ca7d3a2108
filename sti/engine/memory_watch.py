"""Gives an engine's memory back by itself while the machine, or a cgroup, is short of it.

In: what is available (``sti.device.memory_pressure``), once a second on a thread of its own and
before runs, and when the engine ran last. Out: an idle engine gives back all that ``release`` does,
and one at work its preload buffer; that is filled again when memory is not short any more. Each is
told once. Knows the engine's parts, but not the engine, so that one that is dropped is collected.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from sti.device import host, memory_pressure
from sti.device.host import Memory
from sti.errors import RunError
from sti.notices import Notify
from sti.pipeline.workers import Worker
from sti.units import format_size

LOOK_S = 1.0
"""Between two looks at what is available: less than it takes to fill memory that is not short yet,
and a look takes 0.2 ms."""
IDLE_S = 5.0
"""Without a run for so long, an engine is idle: what its next run makes anew takes longer."""
_log = logging.getLogger(__name__)


class Givers(Protocol):
    """What can be given back, and had again; called by who has the engine's lock."""

    @property
    def refill_bytes(self) -> int:
        """Bytes that the preload buffer is to hold again."""

    def give_preload_back(self) -> int:
        """Give back the preload buffer, and do without; the bytes that it held."""

    def release(self) -> None:
        """Give back all that the next run can make anew."""

    def fill_again(self) -> None:
        """Have a preload buffer again."""


class MemoryWatch:
    """Watches memory for one engine. The engine's lock serialises all but the looks.

    Args:
        plans: have the preload buffer; do not refer to the engine.
        lock: the engine's.
        notify: told of each change, on the thread that sees it.
        wanted: False: nothing is watched or given back.
    """

    def __init__(
        self,
        plans: Givers,
        lock: threading.RLock,
        notify: Notify,
        *,
        wanted: bool,
    ) -> None:
        self._plans, self._lock = plans, lock
        self._notify, self._wanted = notify, wanted
        self._worker = Worker("sti-memory")
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._watching = False
        self._ended = False
        self._seen: Sequence[Memory] = ()
        self._looked_s = self._ran_s = -LOOK_S
        self._has_memory = False
        """Whether a run took memory, or the preload buffer, that was not given back since."""
        self._given = 0
        """Bytes that an idle engine gave back, and that its next run takes again."""
        self._told = False
        """Whether this shortage was told of."""
        self.short = False
        """Whether memory is short."""
        self.yields = 0
        """How often something was given back."""

    def before_run(self) -> None:
        """Look, unless that was done just now, and give the preload buffer back where memory is
        short. The engine's lock is held, and no run is at work.
        """
        if self._wanted:
            if perf_counter() - self._looked_s >= LOOK_S:
                self._look()
            self._tell(self._follow(idle=False))

    def took_memory(self) -> None:
        """Take note that a run, or filling the preload buffer, took memory; watch from now on. The
        engine's lock is held, or nobody else has the engine yet.
        """
        if not self._wanted:
            return
        self._has_memory, self._given, self._ran_s = True, 0, perf_counter()
        self._tell(self._follow(idle=False))
        if not self._watching:
            try:
                self._worker.submit(self._watch)
                self._watching = True
            except RunError:
                _log.debug("memory is looked at before runs alone", exc_info=True)

    def released(self) -> None:
        """Take note that all was given back."""
        self._has_memory = False

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._ended = True
        self._wake.put(None)
        self._worker.close()

    def _watch(self) -> None:
        """What the thread does while there is something to give back, or to fill again."""
        while True:
            try:
                self._wake.get(timeout=LOOK_S)
                return
            except queue.Empty:
                pass
            try:
                if not self._watch_once():
                    return
            except Exception:
                _log.warning("memory could not be given back", exc_info=True)

    def _watch_once(self) -> bool:
        """Look, and do what is due unless a run is at work; whether to go on."""
        self._look()
        if not self._lock.acquire(blocking=False):
            return True  # the call that has it follows before or after its run
        try:
            if self._ended:
                return False
            told = self._follow(idle=perf_counter() - self._ran_s >= IDLE_S)
            goes_on = self._watching = self._has_memory or self.short
        finally:
            self._lock.release()
        try:
            self._tell(told)
        except Exception:
            _log.warning("a notice of memory could not be told", exc_info=True)
        return goes_on

    def _look(self) -> None:
        self._seen, self._looked_s = memory_pressure.look(), perf_counter()

    def _follow(self, *, idle: bool) -> str | None:
        """Do what follows from the last look; what is to be told."""
        if memory_pressure.is_short(self._seen):
            return self._give_back(idle=idle)
        if not self.short:
            return None
        refill = self._plans.refill_bytes
        if not memory_pressure.has_recovered(self._seen, max(refill, self._given)):
            return None
        self.short = False
        self._plans.fill_again()
        self._has_memory |= refill > 0
        return self._recovered_words(refill) if self._told else None

    def _give_back(self, *, idle: bool) -> str | None:
        """Give back what was not given back yet in this shortage; what is to be told."""
        all_back, given = idle and self._has_memory, 0
        before = host.rss_bytes() if all_back else None
        if not self.short:
            self.short, self._told = True, False
            given = self._plans.give_preload_back()
            if given:
                host.trim_heap()
        if all_back:
            self._plans.release()
            self._has_memory = False
            self._given = max(0, (before or 0) - (host.rss_bytes() or before or 0))
        self.yields += bool(given or all_back)
        return self._short_words(given, all_back=all_back)

    def _short_words(self, given: int, *, all_back: bool) -> str | None:
        """What to tell of memory that was given back, or is left alone; once for each shortage."""
        refill = self._plans.refill_bytes
        if self._told or not (given or all_back or refill):
            return None
        self._told = True
        if given:
            done = f"{format_size(given)} of held weights were given back"
        elif refill:
            done = f"the preload buffer of {format_size(refill)} is not filled"
        else:
            done = ""
        if all_back:
            done = "; ".join(
                filter(None, ["the engine is idle and gave back what runs take", done])
            )
        return f"memory is short: {_available(self._seen)}; {done}"

    def _recovered_words(self, refill: int) -> str:
        then = f"; the preload buffer of {format_size(refill)} is filled again" if refill else ""
        return f"memory is not short any more: {_available(self._seen)}{then}"

    def _tell(self, words: str | None) -> None:
        if words is not None:
            self._notify(words)


def _available(seen: Sequence[Memory]) -> str:
    found = memory_pressure.nearest(seen)
    if found is None or found.available_bytes is None or found.total_bytes is None:
        return "the system does not say any more how much is available"
    return f"{format_size(found.available_bytes)} of {format_size(found.total_bytes)} are available"
