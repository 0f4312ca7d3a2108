"""A peer that says what it likes: a socket of ZeroMQ without our rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import zmq

from sti.exchange.frames import encode
from sti.exchange.zeromq.keys import Keys
from sti.exchange.zeromq.wire import frames_of

LONG_MS = 30_000


class RawPeer:
    """Connected to a listener.

    Args:
        keys: whose; None for none.
        server: the name of the listener.
        route: what it calls its connection.
    """

    def __init__(
        self, address: str | None, keys: Keys | None = None, *, server: str = "", route: bytes = b""
    ) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVTIMEO, LONG_MS)
        self.socket.setsockopt(zmq.SNDTIMEO, LONG_MS)
        if route:
            self.socket.setsockopt(zmq.ROUTING_ID, route)
        if keys is not None:
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, keys.public[server])
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(keys.secret))
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        self.socket.connect(f"tcp://{address}")

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.socket.send(frame)

    def send_parts(self, parts: Sequence[bytes]) -> None:
        self.socket.send_multipart(parts)

    def receive(self) -> bytes:
        return self.socket.recv()

    @staticmethod
    def message(key: str, size: int = 1) -> list[bytes]:
        return list(frames_of(encode(key, {}, [np.zeros(size, np.int8)])))

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)
