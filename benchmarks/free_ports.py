"""Ports on loopback for processes that are started, and started again, on this machine.

Out: ports that nobody listens at, and that the system gives to nobody by itself: a process that is
started again finds its own free, whatever connected to other places meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from random import SystemRandom

_PORTS = range(12_000, 32_000)
"""Below those that Linux gives to whoever asks for any."""
_TRIED = 1000


def free_ports() -> Iterator[int]:
    """Such ports, each once, drawn at random: other processes draw theirs at the same time."""
    return filter(_is_free, SystemRandom().sample(_PORTS, _TRIED))


def _is_free(port: int) -> bool:
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
