"""Measuring the link to a peer: how long a word takes, and how many bytes a second follow.

In: an exchange, a peer that answers echoes (every device does). Out: ``Link``. The least of a few
tries counts: what a link can do, not what else is on it just now; runs correct it.
"""

from __future__ import annotations

import itertools
import time

import numpy as np

from sti.devices import commands
from sti.errors import PeerError
from sti.exchange.interface import Exchange
from sti.planning.links import Link

_SMALL, _LARGE = 64, 1 << 16
"""Bytes of an echo."""
_TRIES = 3
_LONGEST_S = 5.0
_LEAST_S = 1e-6
_COUNT = itertools.count()


def measured_link(exchange: Exchange, peer: str) -> Link:
    """The link from this device to another, and back: half of what echoes take.

    Raises:
        PeerError: the peer does not answer.
    """
    small = min(_echo_s(exchange, peer, _SMALL) for _ in range(_TRIES))
    large = min(_echo_s(exchange, peer, _LARGE) for _ in range(_TRIES))
    # An echo crosses the link twice.
    rate = 2.0 * (_LARGE - _SMALL) / max(_LEAST_S, large - small)
    return Link(small / 2.0, rate)


def _echo_s(exchange: Exchange, peer: str, size: int) -> float:
    """Seconds that an echo of so many bytes takes."""
    key, payload = f"echo {next(_COUNT)}", np.zeros(size, np.uint8)
    start = time.perf_counter()
    exchange.send(peer, key, {"do": commands.ECHO}, (payload,))
    answer = exchange.receive(key=key, peer=peer, deadline=time.monotonic() + _LONGEST_S)
    seconds = time.perf_counter() - start
    if answer.head.get("is") != commands.ECHO or len(answer.arrays) != 1:
        raise PeerError(f"{peer}: does not answer echoes: {answer.head.get('why', '')}")
    return seconds
