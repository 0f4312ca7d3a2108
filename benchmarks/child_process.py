"""Starting a child process of a benchmark that is asked by pipes, wherever it is to run.

In: a module, what it is asked. Out: the process with its pipes, and what it writes on standard
error. Knows nothing of networks, or of what is said over the pipes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, Any

from benchmarks.common import ROOT


def start_child(
    run: Callable[..., subprocess.Popen[Any]], module: str, asked: str
) -> tuple[subprocess.Popen[str], IO[str]]:
    """Start a module as a program, with one argument.

    Args:
        run: starts a process, with the arguments of ``subprocess.Popen``.

    Returns:
        The process, and a file of what it writes on standard error, which has no name, so that
        nothing is left of a process that is killed; both are the caller's to end and to close.
    """
    errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
    process = run(
        [sys.executable, "-m", module, asked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        cwd=ROOT,
    )
    return process, errors
