"""What the installed libzmq has to be able to do: encrypt, and tell of connections.

Packages of pyzmq bring a library that does; one that was compiled here uses what the system has.
"""

from __future__ import annotations

import zmq

from sti.errors import RunError

_LEAST = (4, 3)
"""Tells why handshakes fail."""


def check_library() -> None:
    """Refuse a library that lacks something.

    Raises:
        RunError: says what.
    """
    remedy = "install a newer libzmq with libsodium, then pyzmq again"
    if zmq.zmq_version_info()[:2] < _LEAST:
        raise RunError(f"libzmq {zmq.zmq_version()} is too old, 4.3 is needed: {remedy}")
    if not zmq.has("curve"):
        raise RunError(f"libzmq {zmq.zmq_version()} was compiled without encryption: {remedy}")
