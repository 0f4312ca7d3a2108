"""Having a graph built in a process of its own, so that this one's memory does not grow by it.

In: a task for ``graph_child``. Out: nothing where the graph is in its cache afterwards, else a
typed error. The process is ended when the graph is not wanted any more, takes too long, or this
process ends. Knows nothing of plans.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from subprocess import DEVNULL, Popen, TimeoutExpired

from sti.device.other_process import own_python, start
from sti.device.process_answers import NoAnswer, answer_of
from sti.errors import GraphError, StiError
from sti.notices import log_notice
from sti.storage.threads import start_thread

LONGEST_S = 900.0
"""Seconds after which building is given up."""
_GRACE_S = 2.0
"""Seconds that a process has to end by itself."""
_CHILD = "sti.engine.graph_child"


class GraphBuilder:
    """Builds one graph at a time. ``build`` may be called by one thread, the rest by any.

    In a forked child nothing is built, and what its parent builds goes on.

    Args:
        python: the interpreter; this process's own by default.
    """

    def __init__(self, *, python: str | None = None) -> None:
        self._python = python if python is not None else own_python()
        self._lock, self._process = threading.Lock(), os.getpid()
        self._child: Popen[bytes] | None = None
        self._cancelled = self._ended = False
        """Whether nothing is built any more; whether what was built last was ended."""

    def build(
        self,
        task: Mapping[str, object],
        *,
        wanted: Callable[[], bool] = lambda: True,
        longest_s: float = LONGEST_S,
    ) -> None:
        """Have a graph built, and wait for it.

        Args:
            wanted: asked once, before a process is started. Whoever makes it False and then calls
                ``end`` may rely on it that no process is started or goes on.
            longest_s: seconds after which building is given up.

        Raises:
            GraphError: it cannot be built here, or ``end`` or ``cancel`` was called.
            StiError: as the process that builds found.
        """
        child = self._start(wanted)
        timer = threading.Timer(longest_s, child.kill)
        timer.daemon = True
        failure: StiError | NoAnswer | None = None
        try:
            start_thread(timer)
            _ask(child, task)
        except (StiError, NoAnswer) as error:
            failure = error
        finally:
            timer.cancel()
            if timer.ident is not None:  # it was started
                timer.join()
            status = self._status_of(child)
        if self._ended:
            raise _cancelled()
        if isinstance(failure, NoAnswer):
            raise GraphError(
                f"the process that builds a graph ended without one (status {status}); it may have "
                "been ended for lack of memory or for taking too long"
            ) from failure
        if failure is not None:
            raise failure

    def end(self) -> None:
        """End what is being built, if anything is; other graphs can be built afterwards."""
        if self._is_inherited:
            return
        with self._lock:
            if self._child is not None:
                self._ended = True
                self._child.kill()

    def cancel(self) -> None:
        """End what is being built; nothing is built afterwards. Idempotent."""
        self._cancelled = True
        self.end()

    @property
    def _is_inherited(self) -> bool:
        """Whether this is a forked child: a thread that stayed behind may have had the lock, and
        the process that builds is not its own.
        """
        return os.getpid() != self._process

    def _start(self, wanted: Callable[[], bool]) -> Popen[bytes]:
        if not self._python:
            raise GraphError(
                "graphs are built by another process of Python, and there is no interpreter to "
                "start one with"
            )
        if self._is_inherited:
            raise GraphError("graphs are built by the process that opened the engine; open it here")
        with self._lock:
            if self._cancelled or not wanted():
                raise _cancelled()
            self._ended = False
            try:
                self._child = start(self._python, _CHILD, errors_to=DEVNULL)
            except OSError as error:
                raise GraphError(
                    f"graphs are built by another process, and none can be started: "
                    f"{error.strerror}"
                ) from error
            return self._child

    def _status_of(self, child: Popen[bytes]) -> int:
        """The status of the process, which ends now or is made to."""
        with self._lock:
            self._child = None
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):  # what was not sent yet is not wanted any more
                if pipe is not None:
                    pipe.close()
        try:
            return child.wait(_GRACE_S)
        except TimeoutExpired:
            child.kill()
            return child.wait()


def _cancelled() -> GraphError:
    return GraphError("building a graph was cancelled")


def _ask(child: Popen[bytes], task: Mapping[str, object]) -> None:
    """Give a task to the process and wait for its answer.

    Raises:
        StiError: as it answers.
        NoAnswer: it does not.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(OSError):  # it has ended; its status tells how
        child.stdin.write(json.dumps(task).encode() + b"\n")
        child.stdin.flush()  # and left open: the process ends with it
    answer_of(child.stdout, log_notice)
