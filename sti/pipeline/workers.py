"""The worker threads behind the lanes, and the hand-over between them.

Runs jobs one after the other on a named thread, whatever they do. A job reports its own failures; a
broken channel raises the failure in every thread that waits on it, so that none is left hanging
when another one fails.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import Generic, TypeVar

from sti.device.run_queue import WaitCounter
from sti.errors import RunError, StorageError
from sti.storage.threads import LOOK_S, start_thread

T = TypeVar("T")

_SPIN_S = 2e-4
"""How long a thread waits at a latch before it sleeps.

A thread that sleeps has to be woken, often on the core of the thread that wakes it, and blocks end
within less time than that for all of the threads that share them.
"""

_STARTED_S = 1.0
"""By when a thread that was interrupted while it started has started, if it does at all."""


Alarm = Callable[[], None]
"""Raises ``StorageError`` where what is waited for hangs in a read; called every now and then."""


def check_process(process: int) -> None:
    """Refuse to wait for threads in a forked child, which has none of them.

    Raises:
        RunError: this is not the process of this number.
    """
    if os.getpid() != process:
        raise RunError(
            "the process was forked amid a run, and the threads of the run stayed in the parent; "
            "open an engine in the child"
        )


class Broken:
    """A failure travelling through a channel."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Stopped(Exception):
    """Raised on a lane when another lane failed; never reaches a caller."""


class Channel(Generic[T]):
    """A hand-over between two threads: items in order, or the failure that ended them.

    Args:
        alarm: what a ``get`` that waits raises, if that hangs which puts.
    """

    __slots__ = ("_alarm", "_process", "_queue")

    def __init__(self, alarm: Alarm | None = None) -> None:
        self._alarm, self._process = alarm, os.getpid()
        self._queue: queue.SimpleQueue[T | Broken] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        """Hand over an item; never blocks."""
        self._queue.put(item)

    def fail(self, error: BaseException) -> None:
        """Make every waiting and later ``get`` raise ``error``."""
        self._queue.put(Broken(error))

    def get(self) -> T:
        """The next item; waits for it. Raises what ``fail`` was given, or ``alarm`` raises; and
        ``RunError`` in a forked child.
        """
        item = _next(self._queue, None, self._alarm, self._process)
        if isinstance(item, Broken):
            self._queue.put(item)
            raise item.error
        return item


class Latch:
    """Opens once, and lets everybody pass from then on; or raises the failure in all who wait.

    Made of a queue, whose code an interrupt of the caller cannot leave half done: a lock of
    ``threading.Event`` or ``Condition`` may stay taken for ever after one.

    Args:
        alarm: what a ``wait`` raises, if that hangs which opens the latch.
        process: that of the thread which opens it; None for the one that makes it.
    """

    __slots__ = ("_alarm", "_open", "_process", "_queue", "is_lost")

    def __init__(self, alarm: Alarm | None = None, process: int | None = None) -> None:
        self._alarm, self._process = alarm, os.getpid() if process is None else process
        self._open = self.is_lost = False
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
        """Wait until the latch is open; False if that takes longer.

        Raises:
            What ``fail`` got.
            RunError: what ``alarm`` raises, or this is a forked child; the latch ``is_lost`` then.
        """
        patient_s = perf_counter() + _SPIN_S
        while not self._open and self._queue.empty() and perf_counter() < patient_s:
            sleep(0)  # lets other Python threads run
        if self._open:
            return True
        try:
            item = _next(self._queue, timeout_s, self._alarm, self._process)
        except queue.Empty:
            return False
        except RunError:
            self.is_lost = True
            raise
        self._queue.put(item)  # for the others
        if item is not None:
            raise item.error
        return True


def _next(
    items: queue.SimpleQueue[T], timeout_s: float | None, alarm: Alarm | None, process: int
) -> T:
    """The next item of a queue, for whoever waits in the process of this number.

    Raises:
        queue.Empty: there is none in time.
        StorageError: as ``alarm`` does.
        RunError: a forked child waits.
    """
    end = None if timeout_s is None else perf_counter() + timeout_s
    while True:
        check_process(process)
        left = LOOK_S if end is None else max(0.0, min(LOOK_S, end - perf_counter()))
        try:
            return items.get(timeout=left)
        except queue.Empty:
            if alarm is not None:
                alarm()
            if end is not None and perf_counter() >= end:
                raise


def wait_for_all(ended: Sequence[Latch], stop: Callable[[BaseException], None]) -> None:
    """Wait for every latch that is not lost, whatever interrupts the caller meanwhile.

    Args:
        stop: called with what interrupted the caller, so that the others end soon.
    """
    for latch in ended:
        while not latch.is_lost:
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

    Args:
        alarm: raises where the thread hangs in a read. Nobody waits for it then; it ends when that
            read has returned, if it ever does, and the worker is closed.
    """

    def __init__(self, name: str, alarm: Alarm | None = None) -> None:
        self._name, self._alarm = name, alarm
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._claim = threading.Lock()
        self._working = Latch()
        self._thread: threading.Thread | None = None
        self._waits: WaitCounter | None = None
        self._asked, self._process = False, os.getpid()

    def submit(self, job: Callable[[], None]) -> Latch:
        """Queue a job that handles its own errors; the latch opens when it has ended.

        Raises:
            RunError: the thread cannot be started, or stayed in the process that was forked.
        """
        check_process(self._process)
        done = Latch(self._alarm, self._process)  # a fork may come between the lines

        def run() -> None:
            try:
                job()
            finally:
                done.open()

        self.start()
        self._jobs.put(run)
        return done

    def do(self, work: Callable[[], T]) -> T:
        """Have the thread do something, and wait for what it gives.

        Raises:
            What interrupted the caller; else what ``work`` raises, or ``alarm``, where the thread
            hangs.
        """
        found: list[T] = []
        failed: list[BaseException] = []
        interrupted: list[BaseException] = []

        def job() -> None:
            try:
                found.append(work())
            except BaseException as error:
                failed.append(error)

        # Whatever interrupts the caller: what the work writes to is the caller's again afterwards.
        wait_for_all([self.submit(job)], interrupted.append)
        try:
            if interrupted or failed:
                raise (interrupted or failed)[0]
            return found[0]
        finally:
            failed.clear()
            interrupted.clear()

    def check(self) -> None:
        """Raise where the thread hangs in a read."""
        if self._alarm is not None:
            self._alarm()

    def start(self) -> int | None:
        """Start the thread, if need be; returns the system's number for it, where there is one.

        Raises:
            RunError: the system does not start it.
        """
        if self._thread is None:
            self._asked = True
            try:
                start_thread(threading.Thread(target=self._loop, name=self._name, daemon=True))
            except RunError:
                self._asked = False
                raise
            self._working.wait()
        return None if self._thread is None else self._thread.native_id

    def waited_s(self) -> float | None:
        """Seconds that the thread waited for a core so far; None where the system does not say."""
        return 0.0 if self._waits is None else self._waits.read()

    def leave(self) -> None:
        """Go on without the thread, which hangs: it ends when its read has returned."""
        self._jobs.put(None)
        self._asked = False

    @property
    def is_alive(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether its thread asks."""
        thread = self._thread
        return thread is not None and thread.ident == threading.get_ident()

    def end(self) -> None:
        """Have the thread end after the jobs already submitted, without waiting; ``close`` does."""
        if self._asked:
            self._jobs.put(None)

    def close(self) -> None:
        """End the thread after the jobs already submitted, without waiting for one that hangs in a
        read. Idempotent.
        """
        if self._asked:
            self.end()
            self._working.wait(_STARTED_S)
            # An engine that nobody closed may be collected, and closed, on one of its own threads.
            thread = self._thread
            if thread not in (None, threading.current_thread()):
                self._join(thread)
            self._asked = False

    def _join(self, thread: threading.Thread) -> None:
        if self._alarm is None:
            thread.join()
            return
        while thread.is_alive():
            thread.join(LOOK_S)
            try:
                self._alarm()
            except StorageError:
                return

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
