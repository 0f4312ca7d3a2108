"""Other processes of a test: stand-ins for Python's interpreter, children, forked children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.support.paths import ROOT

WAIT_S = 60.0
"""Only a test that fails waits for so long."""
_POLL_S = 0.01
_HANGS_S = 20


def interpreter(place: Path, words: str) -> str:
    """An executable in place of Python's: a shell that does what the words say."""
    path = place / "python"
    path.write_text(f"#!/bin/sh\n{words}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def ended(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, of this Python, that ended in time."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=ROOT,
        check=False,
    )


def children() -> list[int]:
    """Processes that this one has started and not waited for."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def until(reached: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    pause = threading.Event()
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        if reached():
            return
        pause.wait(_POLL_S)
    raise AssertionError("it did not come to that")


def forked(act: Callable[[], object]) -> int:
    """The exit status of a forked child that does something: 0, or 1 if it raises; it is ended if
    it hangs.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(_HANGS_S)
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
