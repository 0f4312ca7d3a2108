"""The sockets of the transport, with every option that matters set on purpose.

In: addresses and keys. Out: sockets that listen or connect, and their monitors. Errors of ZeroMQ
are translated here.

- CURVE on every socket where there are keys. A listener takes nobody whom the ZAP handler has not
  named: the domain is enforced, so that without a handler nobody is let in.
- Heartbeats find peers that are frozen or unplugged; the system tells of those that are killed.
- A stranger can hold a connection for ``HANDSHAKE_S``, and make it hold one frame.
- ``HWM`` frames wait in ZeroMQ in each direction of a connection, about 4 MB: enough for the
  network not to run dry between two looks. The rest waits in the outbox, where it can be counted
  and dropped.
- ``LINGER`` 0: what is not sent when a socket is closed is dropped.
- Small frames leave at once: libzmq sets TCP_NODELAY itself.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

import zmq

from sti.errors import InputError, RunError
from sti.exchange.zeromq.addresses import Address
from sti.exchange.zeromq.keys import Keys
from sti.exchange.zeromq.wire import CHUNK_BYTES

ZAP_DOMAIN = b"sti"
HANDSHAKE_S = 3.0
CONNECT_S = 2.0
RETRY_S, MOST_RETRY_S = 0.1, 1.0
HWM = 64
_MOST_FRAME_BYTES = CHUNK_BYTES + 128
"""With its letter, and what encryption adds."""
_BEATS = 3
"""Heartbeats in the time for which a peer may be silent."""
FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Monitored(NamedTuple):
    """A socket and what tells of its connections."""

    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]

    def close(self) -> None:
        """Close both."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context with one thread of its own.

    Raises:
        RunError: the system gives no more descriptors or threads.
    """
    try:
        return zmq.Context(io_threads=1)
    except zmq.ZMQError as error:
        raise _failed(error) from error


def listen(
    context: zmq.Context[zmq.Socket[bytes]], address: Address, keys: Keys | None, silence_s: float
) -> Monitored:
    """A socket that devices connect to.

    Raises:
        InputError: the address cannot be listened at.
        RunError: the system gives no more descriptors.
    """
    made = _made(context, zmq.ROUTER, address, keys, silence_s, zmq.EVENT_DISCONNECTED | FAILED)
    try:
        made.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # tells when a peer is gone, or full
        if keys is not None:
            made.socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
            made.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            made.socket.setsockopt(zmq.CURVE_SERVER, 1)
        made.socket.bind(f"tcp://{address}")
    except zmq.ZMQError as error:
        made.close()
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.ENODEV):
            raise InputError(f"{address}: cannot be listened at: {error.strerror}") from error
        raise _failed(error) from error
    return made


def dial(
    context: zmq.Context[zmq.Socket[bytes]],
    address: Address,
    peer: str,
    keys: Keys | None,
    silence_s: float,
) -> Monitored:
    """A socket that connects to a peer, and again until it is there.

    Raises:
        RunError: the system gives no more descriptors.
    """
    events = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | FAILED
    made = _made(context, zmq.DEALER, address, keys, silence_s, events)
    try:
        if keys is not None:
            made.socket.setsockopt(zmq.CURVE_SERVERKEY, keys.public[peer])
        made.socket.setsockopt(zmq.CONNECT_TIMEOUT, round(CONNECT_S * 1e3))
        made.socket.setsockopt(zmq.RECONNECT_IVL, round(RETRY_S * 1e3))
        made.socket.setsockopt(zmq.RECONNECT_IVL_MAX, round(MOST_RETRY_S * 1e3))
        made.socket.connect(f"tcp://{address}")
    except zmq.ZMQError as error:
        made.close()
        raise _failed(error) from error
    return made


def _made(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    address: Address,
    keys: Keys | None,
    silence_s: float,
    events: int,
) -> Monitored:
    try:
        socket = context.socket(kind)
    except zmq.ZMQError as error:
        raise _failed(error) from error
    try:
        for option, value in {
            zmq.LINGER: 0,
            zmq.SNDHWM: HWM,
            zmq.RCVHWM: HWM,
            zmq.MAXMSGSIZE: _MOST_FRAME_BYTES,
            zmq.IPV6: ":" in address.host,
            zmq.HANDSHAKE_IVL: round(HANDSHAKE_S * 1e3),
            zmq.HEARTBEAT_IVL: round(silence_s * 1e3 / _BEATS),
            zmq.HEARTBEAT_TIMEOUT: round(silence_s * 1e3),
        }.items():
            socket.setsockopt(option, value)
        if keys is not None:
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public[keys.name])
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        return Monitored(socket, socket.get_monitor_socket(events))
    except zmq.ZMQError as error:
        socket.close(0)
        raise _failed(error) from error


def _failed(error: zmq.ZMQError) -> RunError:
    remedy = ""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "; raise the limit of open descriptors (`ulimit -n`)"
    return RunError(f"ZeroMQ: {error.strerror}{remedy}")
