"""One system under test, and its process as seen from outside.

In: a ``System``: how its process is started, and which files it reads. Out: a ``Child``, which
answers the commands of ``sti.benchmark.system_process``. Knows nothing of figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sti.benchmark.system_process import Spec
from sti.errors import RunError
from sti.storage.file_reader import drop_cache
from sti.storage.threads import start_thread

_END_S = 30.0


@dataclass(frozen=True, slots=True)
class System:
    """One system under test."""

    name: str
    module: str
    """Run with ``python -m``; its main is ``sti.benchmark.system_process.serve``."""
    spec: Spec
    files: tuple[Path, ...]
    """What it reads; dropped from the page cache before a cold start."""
    python: str = sys.executable
    """The interpreter, where its libraries are installed apart."""
    cwd: Path | None = None
    """Where its process runs and looks for its module first; None: here. Files are absolute."""
    before: tuple[str, ...] = ()
    """Words before its command: a program that becomes it, such as one that limits its memory."""
    answer_s: float | None = None
    """Seconds that a reply may take, else the process is ended and has failed; None: any time."""


class Child:
    """A running child; ``ask`` is one command and its answer."""

    def __init__(self, system: System) -> None:
        self._system = system
        # A file, not a pipe: some libraries say more than a pipe holds.
        self._said = tempfile.TemporaryFile(  # noqa: SIM115  closed with the process
            mode="w+", encoding="utf-8", errors="replace"
        )
        self._child = subprocess.Popen(
            [*system.before, system.python, "-m", system.module],
            cwd=system.cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def hear(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            RunError: the process ended instead, or took too long; holds what it said.
        """
        assert self._child.stdout is not None
        patience = self._system.answer_s
        late = threading.Event()
        with _alarm(patience, late, self._child):
            line = self._child.stdout.readline()
        if late.is_set():
            raise RunError(f"{self._system.name}: no answer within {patience:g} s")
        if not line:
            code = self._child.wait()
            self._said.seek(0)
            said = self._said.read().strip().splitlines()
            reason = said[-1] if said else f"exit code {code}"
            raise RunError(f"{self._system.name}: its process ended: {reason}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command, wait for its answer; raises what ``hear`` raises."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(command + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: hear() says why
        return self.hear()

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.close()
            self._child.wait(_END_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._child.kill()
            self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._said.close()


@contextmanager
def _alarm(
    patience: float | None, late: threading.Event, child: subprocess.Popen[str]
) -> Iterator[None]:
    """End ``child``, and set ``late``, where the body takes longer than ``patience`` seconds."""
    if patience is None:
        yield
        return

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(patience, end)
    start_thread(timer)
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def started(system: System) -> Iterator[Child]:
    """A child that has imported what it needs, its files not in the page cache."""
    process = Child(system)
    try:
        process.ask(system.spec.to_json())
        for file in system.files:
            drop_cache(file)
        yield process
    finally:
        process.close()
