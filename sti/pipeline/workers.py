"""The worker threads behind the lanes, and the hand-over between them.

Runs jobs one after the other on a named thread, whatever they do. A job reports its own failures; a
broken channel raises the failure in every thread that waits on it, so that none is left hanging
when another one fails.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import Generic, TypeVar

from sti.device.run_queue import WaitCounter

T = TypeVar("T")

_SPIN_S = 2e-4
"""How long a thread waits at a latch before it sleeps.

A thread that sleeps has to be woken, often on the core of the thread that wakes it, and blocks end
within less time than that for all of the threads that share them.
"""


_STARTED_S = 1.0
"""By when a thread that was interrupted while it started has started, if it does at all."""


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


class Latch:
    """Opens once, and lets everybody pass from then on; or raises the failure in all who wait.

    Made of a queue, whose code an interrupt of the caller cannot leave half done: a lock of
    ``threading.Event`` or ``Condition`` may stay taken for ever after one.
    """

    __slots__ = ("_open", "_queue")

    def __init__(self) -> None:
        self._open = False
        self._queue: queue.SimpleQueue[Broken | None] = queue.SimpleQueue()

    def open(self) -> None:
        """Let everybody pass."""
        self._open = True
        self._queue.put(None)

    @property
    def is_open(self) -> bool:
        """Whether everybody may pass."""
        return self._open

    def fail(self, error: BaseException) -> None:
        """Make every waiting and later ``wait`` raise ``error``, unless the latch is open."""
        self._queue.put(Broken(error))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the latch is open; False if that takes longer. Raises what ``fail`` got."""
        patient_s = perf_counter() + _SPIN_S
        while not self._open and self._queue.empty() and perf_counter() < patient_s:
            sleep(0)  # lets other Python threads run
        if self._open:
            return True
        try:
            item = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return False
        self._queue.put(item)  # for the others
        if item is not None:
            raise item.error
        return True


def wait_for_all(ended: Sequence[Latch], stop: Callable[[BaseException], None]) -> None:
    """Wait for every latch, whatever interrupts the caller meanwhile.

    Args:
        stop: called with what interrupted the caller, so that the others end soon.
    """
    for latch in ended:
        while True:
            try:
                latch.wait()
                break
            except BaseException as error:
                stop(error)


class Worker:
    """A daemon thread that runs submitted jobs in order.

    ``submit`` may be called from any thread, until ``close``, which waits for the jobs already
    submitted. Started on the first job, so that an engine that is only inspected starts no thread.
    An interrupt while it starts may leave a thread that nobody noted; so threads note themselves,
    and only the first one works.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._claim = threading.Lock()
        self._working = Latch()
        self._thread: threading.Thread | None = None
        self._waits: WaitCounter | None = None
        self._asked = False

    def submit(self, job: Callable[[], None]) -> Latch:
        """Queue a job that handles its own errors; the latch opens when it has ended."""
        done = Latch()

        def run() -> None:
            try:
                job()
            finally:
                done.open()

        self.start()
        self._jobs.put(run)
        return done

    def start(self) -> int | None:
        """Start the thread, if need be; returns the system's number for it, where there is one."""
        if self._thread is None:
            self._asked = True
            threading.Thread(target=self._loop, name=self._name, daemon=True).start()
            self._working.wait()
        return None if self._thread is None else self._thread.native_id

    def waited_s(self) -> float | None:
        """Seconds that the thread waited for a core so far; None where the system does not say."""
        return 0.0 if self._waits is None else self._waits.read()

    def close(self) -> None:
        """End the thread after the jobs already submitted. Idempotent."""
        if self._asked:
            self._jobs.put(None)
            self._working.wait(_STARTED_S)
            # An engine that nobody closed may be collected, and closed, on one of its own threads.
            if self._thread not in (None, threading.current_thread()):
                self._thread.join()
            self._asked = False

    def _loop(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        self._thread = threading.current_thread()
        self._waits = WaitCounter(threading.get_native_id())
        self._working.open()
        while (job := self._jobs.get()) is not None:
            job()
            del job  # what it holds is not to stay until the next one comes
        self._waits.close()
