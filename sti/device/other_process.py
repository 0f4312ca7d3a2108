"""Asking another process of Python, where something takes more memory than this one may.

In: a module that serves a job (``sti.device.process_answers``), and the job. Out: the answer, or
the error as it was raised there. Knows nothing of jobs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

from sti import errors
from sti.device.process_answers import PARENT, NoAnswer, answer_of
from sti.errors import RunError
from sti.notices import Notify

_MOST_TOLD = 400
"""Characters of what the other process said that an error repeats."""


_HERE = Path(errors.__file__).parent.parent
"""Where other processes are started: not where the caller is, whose files Python would import."""


def own_python() -> str:
    """The interpreter of this process; empty where there is none to start."""
    return "" if getattr(sys, "frozen", False) else sys.executable or ""


def start(python: str, module: str, *, errors_to: int) -> Popen[bytes]:
    """Start a module, to be spoken to through its standard input and output.

    Args:
        python: the interpreter.
        errors_to: what becomes of its standard error, as ``Popen`` takes it.

    Raises:
        OSError: it cannot be started.
    """
    # What this process found its packages with, the other one finds them with.
    paths = os.pathsep.join(str(_HERE if item == "" else item) for item in sys.path)
    return Popen(
        [python, "-m", module],
        stdin=PIPE,
        stdout=PIPE,
        stderr=errors_to,
        cwd=_HERE,
        env={**os.environ, "PYTHONPATH": paths, PARENT: str(os.getpid())},
    )


def ask(
    module: str,
    job: Mapping[str, object],
    *,
    what: str,
    remedy: str,
    patience_s: float,
    notify: Notify,
) -> Any:
    """The answer of a module that runs in a process of its own.

    Args:
        what: it does, for messages.
        remedy: what the caller can do where it fails.
        patience_s: seconds after which it is ended.
        notify: told its notices, when it has ended.

    Raises:
        StiError: as the module raised it.
        RunError: no process can be started, or it failed otherwise, or took too long.
    """
    python = own_python()
    if not python:
        raise RunError(
            f"{what} takes another process of Python, and there is no interpreter; {remedy}"
        )
    try:
        child = start(python, module, errors_to=PIPE)
    except OSError as error:
        raise RunError(
            f"{what} takes another process, and no process to do it can be started: "
            f"{error.strerror}; {remedy}"
        ) from error
    with child:
        try:
            out, said = child.communicate(json.dumps(job).encode() + b"\n", timeout=patience_s)
        except BaseException as error:
            child.kill()
            if isinstance(error, TimeoutExpired):
                with suppress(NoAnswer):  # notices that came in time are told all the same
                    return answer_of((error.output or b"").splitlines(), notify)
                raise RunError(f"{what} took over {patience_s:.0f} s; {remedy}") from error
            raise
    try:
        return answer_of(out.splitlines(), notify)
    except NoAnswer as error:
        if not child.returncode:
            raise RunError(f"{what} gave no answer: {error}; {remedy}") from error
        last = said.decode(errors="replace").strip().rpartition("\n")[2][:_MOST_TOLD]
        raise RunError(f"{what} failed: {last}; {remedy}") from error
