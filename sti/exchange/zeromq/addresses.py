"""Addresses of devices, as people write them.

In: ``HOST:PORT``. Out: a numeric address, looked up once, so that no look-up stops the thread that
carries messages; and whether it stays on this machine. Knows nothing of keys or sockets.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple

from sti.errors import InputError, PeerError
from sti.storage.threads import in_time

LOOK_UP_S = 5.0
"""How long a name of a host may take to be looked up."""
_ADDRESS = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", re.ASCII)


class Address(NamedTuple):
    """Where a device listens."""

    host: str
    """Numeric: IPv4 or IPv6."""
    port: int

    @property
    def is_local(self) -> bool:
        """Whether nothing of it leaves this machine."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def look_up(text: str) -> Address:
    """The address that is written ``HOST:PORT``; IPv4 where a host has both.

    Raises:
        InputError: it is written in another way.
        PeerError: the host is not known, or not in time.
        RunError: no thread can be started.
    """
    found = _ADDRESS.fullmatch(text)
    port = int(found[3]) if found else -1
    if found is None or port > 65535:
        raise InputError(
            f"{text!r:.80} is no address: write HOST:PORT, as 192.168.1.20:7000, board.local:7000 "
            "or [fe80::1]:7000"
        )
    host = found[1] or found[2]
    try:
        known = in_time(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), LOOK_UP_S)
    except (OSError, UnicodeError) as error:
        raise PeerError(
            f"{text}: the host cannot be looked up: {error or 'it takes too long'}; write its "
            "numeric address"
        ) from error
    # Most devices listen on one of the two, and that is IPv4's.
    known.sort(key=lambda item: item[0] != socket.AF_INET)
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return Address(socket.getnameinfo(known[0][4], numeric)[0], port)
