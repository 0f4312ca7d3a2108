"""Measuring the link to a peer: how long a word takes, and how many bytes a second follow.

In: an exchange, a peer that answers echoes (every device does), its answers. Out: ``Link``. Nobody
waits for an echo: its answer says when it arrived, whenever it is taken in. The least of a few
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
        self._took_s: list[float] = []
        self._sent_s = 0.0
        self._send()

    @property
    def key(self) -> str:
        """Of the answer that is waited for."""
        return f"echo {self._name} {len(self._took_s)}"

    def take(self, answer: Message) -> Link | None:
        """Take in an answer, and send the next echo; the link once it is measured.

        Raises:
            PeerError: it is no echo, or the peer is not there any more.
        """
        due = ("uint8", (_SIZES[len(self._took_s)],))
        found = [(array.dtype.name, array.shape) for array in answer.arrays]
        if answer.head.get("is") != commands.ECHO or found != [due]:
            why = answer.head.get("why", "")
            raise PeerError(f"{self.peer}: does not answer echoes: {why!r:.200}")
        self._took_s.append(answer.arrived_s - self._sent_s)
        if len(self._took_s) < len(_SIZES):
            self._send()
            return None
        half = len(_SIZES) // 2
        small_s, large_s = min(self._took_s[:half]), min(self._took_s[half:])
        # An echo crosses the link twice.
        rate = 2.0 * (_SIZES[-1] - _SIZES[0]) / max(_LEAST_S, large_s - small_s)
        return Link(small_s / 2.0, rate)

    def _send(self) -> None:
        payload = np.zeros(_SIZES[len(self._took_s)], np.uint8)
        self._sent_s = time.monotonic()
        self._exchange.send(self.peer, self.key, {"do": commands.ECHO}, (payload,))
