"""What both command lines do when standard output cannot be written.

Imports nothing of the project: it is there from the first line on, whatever fails later.
"""

from __future__ import annotations

import os
import sys


def output_failed(error: OSError, speaker: str) -> int:
    """Say what kept the answer from being printed, and return the exit code.

    Files are opened with their errors translated, so what comes here is standard output's.

    Args:
        error: what writing raised.
        speaker: who says so, in front of the message.
    """
    # What is still buffered goes nowhere, or the interpreter complains when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 141  # nobody reads the rest
    where = error.filename or "standard output"
    print(f"{speaker}: {where}: {error.strerror or error}", file=sys.stderr)
    return 2
