"""Engines that are still open when the interpreter ends: they are closed, and their runs stopped.

A thread that computes, or loads a library, while the process is taken apart would abort it. The
threads that are not daemons have ended by then, and handlers of ``atexit`` that were registered
later have run. In: whatever is open. Knows engines only by what ``Closable`` says, and does not
keep them alive.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from sti.errors import ClosedError

_PATIENCE_S = 10.0
"""Within which all runs have stopped, or are left to their fate; a step takes milliseconds."""
_log = logging.getLogger(__name__)


class Closable(Protocol):
    """What is open."""

    def close_at_exit(self, timeout_s: float) -> None:
        """Stop what runs, close, and refuse what comes; give up after ``timeout_s``."""


class _Open:
    """What is open in this process."""

    def __init__(self) -> None:
        self._engines: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._ended = False
        self._forget_locks()
        if hasattr(os, "register_at_fork"):  # whoever had a lock stayed behind
            os.register_at_fork(after_in_child=self._forget_locks)

    def _forget_locks(self) -> None:
        # Of the kind that a signal handler may take amid what has it.
        self._loading = threading.RLock()
        self._noting = threading.RLock()

    def add(self, engine: Closable) -> None:
        """Take note of an engine before it opens anything.

        Raises:
            ClosedError: the interpreter ends.
        """
        with self._noting:
            if self._ended:
                raise ClosedError("the interpreter ends: no engine can be opened any more")
            self._engines.add(engine)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While a library is being loaded: the interpreter waits for the end of it.

        Raises:
            ClosedError: the interpreter ends.
        """
        with self._loading:
            if self._ended:
                raise ClosedError("the interpreter ends: no library can be loaded any more")
            yield

    def end(self) -> None:
        """Close all of them."""
        until = monotonic() + _PATIENCE_S
        with self._noting:
            self._ended = True
            engines = list(self._engines)
        if self._loading.acquire(timeout=_PATIENCE_S):
            self._loading.release()
        for engine in engines:
            try:
                engine.close_at_exit(max(0.0, until - monotonic()))
            except Exception:
                _log.debug("an engine could not be closed at the end", exc_info=True)


OPEN = _Open()
atexit.register(OPEN.end)
