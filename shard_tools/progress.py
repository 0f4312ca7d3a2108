"""A line on the terminal that says what is being done, how far it is, and how long it will take.

In: steps of known size. Out: one line on standard error, rewritten in place; nothing where
standard error is no terminal. Knows nothing of what the steps are.
"""

from __future__ import annotations

import sys
from time import monotonic

from sti.report.terminal import redraw

_INTERVAL_S = 0.1
_PATIENCE_S = 1.0  # before this, a guess of the time left would jump about


class Progress:
    """Progress of one job. A context manager: the line is wiped when it ends.

    Args:
        total: size of the whole job, in any unit.
        shown: False keeps quiet; None shows the line on a terminal only.
    """

    def __init__(self, total: float, *, shown: bool | None = None) -> None:
        self._total = max(total, 1e-9)
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._done = 0.0
        self._start = monotonic()
        self._last = -_INTERVAL_S

    def step(self, size: float, what: str) -> None:
        """Another ``size`` of the job is done; ``what`` is being worked on."""
        self._done = min(self._done + size, self._total)
        elapsed = monotonic() - self._start
        if not self._shown or elapsed - self._last < _INTERVAL_S:
            return
        self._last = elapsed
        share = self._done / self._total
        left = ""
        if elapsed > _PATIENCE_S and share > 0:
            left = f", {elapsed / share - elapsed:.0f} s left"
        redraw(f"{share:4.0%} {what}{left}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            redraw()
