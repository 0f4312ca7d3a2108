"""The ring: memory for compressed steps between the storage lane and the decode lane.

In: sizes, taken by the storage lane and given back in the same order. Out: page-aligned views of
one buffer. Steps of different sizes share it, so that it is just large enough for any ``most``
consecutive ones. Knows nothing of what a step is made of, or of reads.
"""

from __future__ import annotations

from collections import deque

from sti.arrays import ByteArray
from sti.pipeline.workers import Channel


class Ring:
    """Views of a buffer, taken and given back first in, first out.

    Args:
        buffer: page-aligned memory of the caller's, at least as large as the largest step.
        most: views out at a time.

    ``take`` belongs to one thread; ``give_back`` and ``fail`` to any.
    """

    def __init__(self, buffer: ByteArray, *, most: int) -> None:
        self._buffer = buffer
        self._most = most
        self._out: deque[tuple[int, int]] = deque()
        self._returned: Channel[None] = Channel()

    def take(self, size: int) -> ByteArray:
        """A view of ``size`` bytes; waits until it is free. Raises what ``fail`` was given."""
        while True:
            start = self._room(size) if len(self._out) < self._most else None
            if start is not None:
                self._out.append((start, start + size))
                return self._buffer[start : start + size]
            self._returned.get()
            self._out.popleft()

    def give_back(self) -> None:
        """Free the view that was taken first."""
        self._returned.put(None)

    def fail(self, error: BaseException) -> None:
        """Make every waiting and later ``take`` that has to wait raise ``error``."""
        self._returned.fail(error)

    def _room(self, size: int) -> int | None:
        """Where ``size`` bytes are free behind the youngest view, or at the start."""
        if not self._out:
            return 0
        oldest, head = self._out[0][0], self._out[-1][1]
        if head <= oldest:
            return head if oldest - head >= size else None
        if self._buffer.size - head >= size:
            return head
        return 0 if oldest >= size else None
