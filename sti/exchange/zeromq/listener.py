"""The socket where peers connect to this member, and the connections they made.

A peer is who its key says, for each message anew: ZeroMQ hands out the name that the gate gave to
the connection. Without keys, which only loopback does, it is who it says.
"""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message

from sti.errors import InputError
from sti.exchange.frames import MessageError
from sti.exchange.names import check_name
from sti.exchange.zeromq.addresses import Address
from sti.exchange.zeromq.links import ENDED, Board, GoneError, Link
from sti.exchange.zeromq.sockets import Monitored
from sti.exchange.zeromq.wire import HELLO, PROBE, REFUSED, Hello, Refusal

MOST_PEERS = 256
"""Who may have connected, under names of their own."""
_BATCH = 64
_MOST_LEFT = 1024
_NO_HANDSHAKE = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
_PROBE_S, _PROBES = 0.002, 100
"""How often, and how many times, a connection is tried of which the system said that it ended: its
number may be that of a new one already."""
_ANEW = "it connected anew; two that connect at a time need names, and keys, of their own"
"""Why the older connection of a name is given up; who made it waits until the newer one ends."""


class Accepted(Link):
    """A connection that a peer made."""

    def __init__(
        self, peer: str, board: Board, socket: zmq.Socket[bytes], route: bytes, number: int
    ) -> None:
        super().__init__(peer, board)
        self._socket, self._route = socket, route
        self.number = number
        """Of its descriptor."""
        self.probes = 0
        self.refusal: bytes | None = None
        """What could not be told yet."""

    def refuse(self, why: str, *, gives_way: bool = False) -> None:
        """As ``Link.refuse``; told later where there is no room now."""
        self.refusal = Refusal(why, gives_way).frame()
        self.down(why)

    def push(self, frame: bytes) -> bool:
        """As ``Link.push``."""
        try:
            self._socket.send_multipart([self._route, frame], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                raise GoneError from error
            raise
        return True


class Listener:
    """What listens.

    Args:
        made: its socket.
        board: of all connections.
        has_keys: whether names are those of keys.
    """

    def __init__(self, made: Monitored, board: Board, *, has_keys: bool) -> None:
        self._board, self._has_keys = board, has_keys
        self._links: dict[bytes, Accepted] = {}
        self.socket, self.monitor = made

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, _, port = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)[6:].rpartition(":")
        return Address(host.strip("[]"), int(port))

    def on_frames(self) -> None:
        """Read some of what came."""
        self._read(_BATCH)

    def on_event(self) -> None:
        """Look after a connection that ended, or a stranger's."""
        try:
            event = recv_monitor_message(self.monitor, zmq.NOBLOCK)
        except zmq.Again:
            return
        if event["event"] == zmq.EVENT_DISCONNECTED:
            self._read(_MOST_LEFT)  # what it had sent before counts
            for link in self._links.values():
                if link.number == event["value"]:
                    link.probes = _PROBES
        elif event["event"] in _NO_HANDSHAKE:
            self._board.notices.tell(
                "handshake",
                f"at {self.address} something connected that failed the handshake: only one of "
                "the two has keys, or it speaks another protocol",
            )

    def tick(self) -> float | None:
        """Tell peers that they are refused, and try connections of which the system said that they
        ended; the seconds until there is more to do.
        """
        waits = False
        for route, link in list(self._links.items()):
            try:
                if link.refusal is not None and link.push(link.refusal):
                    link.refusal = None
                if link.probes:
                    link.probes -= 1
                    link.push(PROBE)
            except GoneError:
                del self._links[route]
                link.down(ENDED)
            else:
                waits = waits or link.probes > 0 or link.refusal is not None
        return _PROBE_S if waits else None

    def _read(self, most: int) -> None:
        for _ in range(most):
            try:
                route, *parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            link = self._links.get(route.bytes)
            try:
                if len(parts) != 1:
                    raise MessageError(f"{len(parts)} parts where there is one")
                self._got(route.bytes, link, parts[0])
            except MessageError as error:
                self._board.malformed(link.peer if link else "someone", error)

    def _got(self, route: bytes, link: Accepted | None, frame: zmq.Frame) -> None:
        data = frame.buffer
        kind, data = bytes(data[:1]), data[1:]
        if link is None:
            if kind != HELLO:
                raise MessageError("something else than a hello")
            self._welcome(route, frame, Hello.read(data))
        elif not link.is_up:
            return  # of a connection that was refused
        elif self._has_keys and _user(frame) != link.peer:
            link.refuse("its key changed")
        elif kind == REFUSED:
            link.down(f"it refuses this device: {Refusal.read(data).why}")
        else:
            link.take(kind, data)

    def _welcome(self, route: bytes, frame: zmq.Frame, hello: Hello) -> None:
        name = _user(frame) if self._has_keys else hello.name
        link = Accepted(name, self._board, self.socket, route, int(frame.get(zmq.SRCFD)))
        self._links[route] = link
        try:
            self._check(name, hello.name)
        except InputError as error:
            if not hello.gives_way:  # whoever does was told of before
                self._board.notices.tell(f"refused {name!r:.80}", f"{error}; it was refused")
            link.refuse(str(error), gives_way=True)
            return
        for other in self._links.values():
            if other.peer == name and other.is_up:
                if hello.gives_way:
                    other.probes = _PROBES  # where it is dead, the next try gets in
                    link.refuse(_ANEW, gives_way=True)
                    return
                other.refuse(_ANEW, gives_way=True)
                self._board.notices.tell(
                    f"anew {name}",
                    f"{name} connected anew: it was started again, or two devices have its keys",
                )
        try:
            link.push(Hello(self._board.name).frame())
        except GoneError:
            del self._links[route]
            return
        link.up()

    def _check(self, name: str, claimed: str) -> None:
        """Refuse a peer by its name.

        Raises:
            InputError: says why.
        """
        check_name(name)
        if claimed != name:
            raise InputError(f"a device calls itself {claimed!r:.80} and has the key of {name}")
        if name == self._board.name:
            raise InputError(f"a device has the name of this one, {name}; name one of them anew")
        if len({link.peer for link in self._links.values()} | {name}) > MOST_PEERS:
            raise InputError(f"{name}: {MOST_PEERS} devices have connected already")


def _user(frame: zmq.Frame) -> str:
    """The name that the gate gave to the connection of a frame.

    Raises:
        MessageError: it has none.
    """
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError as error:
        raise MessageError("a frame of nobody") from error
