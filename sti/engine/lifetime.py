"""One call of an engine at a time, and the engine's end: whoever asks for it, amid whatever.

In: calls, and what gives back what the engine took. Out: what calls answer; to those that may not
be made, why. Knows nothing of what calls do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from sti.errors import ClosedError, RunError
from sti.pipeline.workers import Latch
from sti.storage.threads import start_thread

T = TypeVar("T")


def _nobody() -> bool:
    return False


def _nothing() -> None:
    return None


class Lifetime:
    """Who may call, and what was asked for amid a call. Thread-safe.

    Does not keep the engine alive: what is given here must not refer to it.

    Args:
        where: the pack, for messages.

    Attributes:
        lock: held by the thread whose call is at work.
        ending: opened when a run that is at work is to stop at its next step.
        closed: whether the engine was closed, or began to be.
        closers: what gives back all that was taken so far; the last one first.
        closers_in_child: the same for a forked child: descriptors alone.
        release: gives back all memory that the next run can make anew.
        is_own_thread: whether one of the engine's own threads asks: Python collects objects, which
            may close engines, in any.
    """

    def __init__(self, where: str) -> None:
        self.lock, self.ending, self.closed = threading.RLock(), Latch(), False
        self.closers: list[Callable[[], object]] = []
        self.closers_in_child: list[Callable[[], object]] = []
        self.release: Callable[[], object] = _nothing
        self.is_own_thread: Callable[[], bool] = _nobody
        self._where, self._process = where, os.getpid()
        self._at_work: int | None = None
        """The thread whose call is at work, by its identifier."""
        self._release_after = self._close_after = self._all_closed = False

    def use(self, work: Callable[[], T]) -> T:
        """Do something with the engine, one call at a time; what was asked for by this very thread
        meanwhile (``ask_to_release``, ``close``) is done after it.

        A function rather than a context: an interrupt at its end leaves nothing locked.

        Raises:
            ClosedError: it was closed.
            RunError: as ``check_idle_here``.
        """
        self.check_idle_here()
        with self.lock:
            if self.closed or self.ending.is_open:
                raise ClosedError(f"{self._where}: the engine was closed; open it again")
            try:
                self._at_work = threading.get_ident()
                return work()
            finally:
                self._at_work = None
                if self._close_after:
                    self.close()
                elif self._release_after:
                    self._release_after = False
                    self.use(self.release)

    def ask_to_release(self) -> None:
        """Give back memory now, or when the call of this very thread that is at work has ended.

        Raises:
            ClosedError, RunError: as ``use``.
        """
        self.check_process()
        if self._is_at_work_here():  # in a signal handler, say, amid this thread's own run
            self._release_after = True
        else:
            self.use(self.release)

    def close(self) -> None:
        """Give back all that was taken. Idempotent; goes on where an interrupt ended it before.

        In a forked child only the descriptors are given back: threads, and what they had locked,
        stayed behind, and what was learned is the parent's to keep. Asked for by the thread whose
        own call is at work (in a signal handler, or as Python collects objects), that call ends
        first, a run at its next step.
        """
        if os.getpid() != self._process:
            self.closed = True
            _call(self.closers_in_child)
        elif self._is_at_work_here():
            self._close_after = True
            self.ending.open()
        elif self.is_own_thread() and not self.lock.acquire(blocking=False):
            # Whoever is at work waits for this thread, which cannot wait for it in turn.
            self.ending.open()
            start_thread(threading.Thread(target=self.close, name="sti-closing", daemon=True))
        else:
            with self.lock:
                self._close()

    def _close(self) -> None:
        self.closed = True
        if self._all_closed:
            return
        try:
            self._at_work = threading.get_ident()
            _call(self.closers)
            self._all_closed = True
        finally:
            self._at_work = None

    def close_at_exit(self, timeout_s: float) -> None:
        """Stop the run that is at work in another thread, and close; not in a forked child.

        Args:
            timeout_s: after which a run that goes on is left alone.
        """
        if os.getpid() != self._process:
            return
        self.ending.open()
        if self.lock.acquire(timeout=timeout_s):
            try:
                self.close()
            finally:
                self.lock.release()

    def check_idle_here(self) -> None:
        """Refuse a forked child, and a thread that the engine's own work waits for.

        Raises:
            RunError: the engine was opened in another process; a call of this thread is at work,
                which cannot end before this one, or would wait for it; or this is one of the
                engine's threads.
        """
        self.check_process()
        if self._is_at_work_here() or self.is_own_thread():
            raise RunError(
                f"{self._where}: the engine is at work in this very thread, which a signal "
                "handler or a callback interrupted; call it when that has ended, or use another "
                "engine"
            )

    def check_process(self) -> None:
        """Refuse a forked child.

        Raises:
            RunError: the engine was opened in another process.
        """
        if os.getpid() != self._process:
            raise RunError(
                f"{self._where}: the engine was opened in another process, and its threads stayed "
                "there; open the engine in the process that uses it"
            )

    def _is_at_work_here(self) -> bool:
        return self._at_work == threading.get_ident()


def _call(closers: list[Callable[[], object]]) -> None:
    """All of them, the last one first, whatever interrupts one."""
    with ExitStack() as last:
        for closer in closers:
            last.callback(closer)
