"""A line on the terminal: how many texts are answered, how fast, and how long it will take.

In: how many there are now, and how much of the input was read. Out: one line on standard error,
rewritten in place; nothing where that is no terminal, nor in the first second.
"""

from __future__ import annotations

import sys
from time import monotonic

from sti.report.terminal import redraw

_PATIENCE_S = 1.0
_INTERVAL_S = 0.1


class Progress:
    """Progress of one job. A context manager: the line is wiped when it ends.

    Args:
        shown: False keeps quiet; None shows the line on a terminal only.
    """

    def __init__(self, *, shown: bool | None = None) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shown = terminal if shown is None else shown
        self._start = monotonic()
        self._last_s = _PATIENCE_S - _INTERVAL_S
        self._written = False

    def step(self, texts: int, share: float | None) -> None:
        """So many texts are answered now.

        Args:
            share: of the input, as far as it was read; None where its size is not known.
        """
        elapsed_s = monotonic() - self._start
        if not self._shown or elapsed_s - self._last_s < _INTERVAL_S:
            return
        self._last_s, self._written = elapsed_s, True
        done = f"{texts} texts, {texts / elapsed_s:.0f} a second"
        if share:
            done = f"{share:4.0%} {done}, {elapsed_s / share - elapsed_s:.0f} s left"
        redraw(done)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._written:
            redraw()
