"""Notices: one-line messages about slow work; purely informational.

In: a line of plain text. Out: whatever the receiver does with it. An ``Engine`` hands every notice
to the ``notify`` that it was opened with; by default notices are logged at INFO under ``sti``.
Notices that concern an answer, such as texts that were cut, are ``sti.StiWarning`` instead.
"""

from __future__ import annotations

from collections.abc import Callable

Notify = Callable[[str], None]
"""Receives a notice. Called in the thread that does the work; what it raises ends that work."""


def log_notice(message: str) -> None:
    """Log a notice: INFO, logger ``sti``. Thread-safe."""
    import logging  # most starts have nothing to tell

    logging.getLogger("sti").info(message)
