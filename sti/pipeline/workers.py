"""The worker threads behind the lanes, and the hand-over between them.

Runs jobs one after the other on a named thread, whatever they do. A job reports its own failures; a
broken channel raises the failure in every thread that waits on it, so that none is left hanging
when another one fails.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Broken:
    """A failure travelling through a channel."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Stopped(Exception):
    """Raised on a lane when another lane failed; never reaches a caller."""


class Channel(Generic[T]):
    """A hand-over between two threads: items in order, or the failure that ended them."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T | Broken] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        """Hand over an item; never blocks."""
        self._queue.put(item)

    def fail(self, error: BaseException) -> None:
        """Make every waiting and later ``get`` raise ``error``."""
        self._queue.put(Broken(error))

    def get(self) -> T:
        """The next item; waits for it. Raises what ``fail`` was given."""
        item = self._queue.get()
        if isinstance(item, Broken):
            self._queue.put(item)
            raise item.error
        return item


class Worker:
    """A daemon thread that runs submitted jobs in order.

    ``submit`` may be called from any thread. ``close`` waits for the jobs already submitted.
    Started on the first job, so that an engine that is only inspected starts no thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> threading.Event:
        """Queue a job that handles its own errors; the event is set when it has ended."""
        done = threading.Event()

        def run() -> None:
            try:
                job()
            finally:
                done.set()

        self.start()
        self._jobs.put(run)
        return done

    def start(self) -> int | None:
        """Start the thread, if need be; returns the system's number for it, where there is one."""
        if self._thread is None:
            thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            thread.start()
            self._thread = thread  # not before: an interrupt may come while it starts
        return self._thread.native_id

    def close(self) -> None:
        """End the thread after the jobs already submitted. Idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
