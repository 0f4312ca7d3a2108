"""What the programs may write to a terminal: text, and nothing that moves its cursor or hides text.

In: text from anywhere: labels and names in packs, file names, the user's own texts, errors. Out:
the same, ``printable``, and written out where the stream's encoding lacks it. All that the programs
print goes through ``PlainStream``; the only control sequences that pass are those of ``redraw``.
Knows nothing of what is printed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from sti.text.control_characters import one_line, printable

_WIPE = "\r\x1b[K"


class PlainStream:
    """A text stream that passes on what is ``printable``. As thread-safe as the stream is."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        """Where it goes."""

    def write(self, text: str) -> int:
        """Write text; the number of its characters."""
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """While standard output and standard error are ``PlainStream``."""
    before = sys.stdout, sys.stderr
    make_output_plain()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def make_output_plain() -> None:
    """Make them so for good, tracebacks of the interpreter's included. Idempotent."""
    sys.stdout, sys.stderr = _plain(sys.stdout), _plain(sys.stderr)


def redraw(text: str = "") -> None:
    """Replace the line that a terminal shows on standard error."""
    stream = getattr(sys.stderr, "stream", sys.stderr)
    stream.write(_WIPE + one_line(text))
    stream.flush()


def _plain(stream: TextIO) -> TextIO:
    """The stream, if it is plain already or there is none, else a plain one of it."""
    if stream is None or isinstance(stream, PlainStream):
        return stream
    if isinstance(stream, io.TextIOWrapper):
        # Labels and texts may hold what its encoding lacks.
        stream.reconfigure(errors="backslashreplace")
    return cast(TextIO, PlainStream(stream))
