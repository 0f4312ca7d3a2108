"""Measuring the link to a peer: how long a word takes, and how many bytes a second follow.

In: an exchange, a peer that answers echoes (every device does), its answers. Out: ``Link``. Nobody
waits for an echo: whoever measures takes its answer in among other messages. The least of a few
tries counts: what a link can do, not what else is on it just now; runs correct it.
"""

from __future__ import annotations

import secrets
import time

import numpy as np

from sti.devices import commands
from sti.errors import PeerError
from sti.exchange.interface import Exchange, Message
from sti.planning.links import Link

_SIZES = (64, 64, 64, 1 << 16, 1 << 16, 1 << 16)
"""Bytes of the echoes."""
_LEAST_S = 1e-6
_MOST_VOID = 3
"""Answers that do not count before all do: an estimate that is too high is better than none."""


class LinkMeter:
    """Measures the link from this device to another, and back: half of what echoes take. For one
    thread.

    Args:
        exchange: reaches the peer; stays the caller's.
        peer: is sent the first echo.

    Raises:
        PeerError: the peer is not there.
    """

    def __init__(self, exchange: Exchange, peer: str) -> None:
        self._exchange, self.peer = exchange, peer
        self._name = secrets.token_hex(8)
        self._asked, self._voids = 0, 0
        self._is_void = False
        self._took_s: list[float] = []
        self._sent_s = 0.0
        self._send()

    @property
    def key(self) -> str:
        """Of the answer that is waited for."""
        return f"echo {self._name} {self._asked}"

    def void(self) -> None:
        """What is waited for just now will not count: nobody listens for a while."""
        if not self._is_void and self._voids < _MOST_VOID:
            self._is_void, self._voids = True, self._voids + 1

    def take(self, answer: Message) -> Link | None:
        """Take in an answer, and send the next echo; the link once it is measured.

        Raises:
            PeerError: it is no echo, or the peer is not there any more.
        """
        took_s = time.perf_counter() - self._sent_s
        due = ("uint8", (_SIZES[len(self._took_s)],))
        found = [(array.dtype.name, array.shape) for array in answer.arrays]
        if answer.head.get("is") != commands.ECHO or found != [due]:
            why = answer.head.get("why", "")
            raise PeerError(f"{self.peer}: does not answer echoes: {why!r:.200}")
        if not self._is_void:
            self._took_s.append(took_s)
        if len(self._took_s) < len(_SIZES):
            self._send()
            return None
        half = len(_SIZES) // 2
        small_s, large_s = min(self._took_s[:half]), min(self._took_s[half:])
        # An echo crosses the link twice.
        rate = 2.0 * (_SIZES[-1] - _SIZES[0]) / max(_LEAST_S, large_s - small_s)
        return Link(small_s / 2.0, rate)

    def _send(self) -> None:
        self._asked, self._is_void = self._asked + 1, False
        payload = np.zeros(_SIZES[len(self._took_s)], np.uint8)
        self._sent_s = time.perf_counter()
        self._exchange.send(self.peer, self.key, {"do": commands.ECHO}, (payload,))
