"""Connections to peers, whoever made them: what goes out over them, and what comes in.

In: frames that a socket gave. Out: messages in the mailbox, peers found and lost there, frames that
a socket takes. A peer may have two connections, one made by each side; the first that is up carries
what is sent to it, and the loss of either loses the peer, since what the other side sent over it
may be gone. For the one thread that owns the sockets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from sti.exchange.frames import MessageError
from sti.exchange.interface import Message
from sti.exchange.mailbox import Mailbox, flooded
from sti.exchange.zeromq.notices import Notices
from sti.exchange.zeromq.outbox import Outbox
from sti.exchange.zeromq.wire import PROBE, Flood, Incoming, frames_of

_BATCH = 64
"""Frames that one peer is sent before it is another's turn."""
_FULL_S = 0.005
"""After which a connection that had no room is tried again: it takes in 4 MB meanwhile."""


class GoneError(Exception):
    """The other side of a connection is no longer there."""


class Link(ABC):
    """A connection to a peer.

    Args:
        peer: who is at its other side.
        board: of all connections.
    """

    def __init__(self, peer: str, board: Board) -> None:
        self.peer, self.board = peer, board
        self.is_up = False
        self._unsent: bytes | None = None
        self._frames: Iterator[bytes] = iter(())
        self._incoming = board.incoming(peer)

    @abstractmethod
    def refuse(self, why: str, *, gives_way: bool = False) -> None:
        """Tell the other side that nothing more is taken of it, and go down.

        Args:
            gives_way: whether it is to come back as one that gives way, and not soon.
        """

    @abstractmethod
    def push(self, frame: bytes) -> bool:
        """Hand a frame to the socket; False where it has no room now.

        Raises:
            GoneError: the peer is gone.
        """

    def up(self) -> None:
        """Take and send messages from now on."""
        self.is_up = True
        self._incoming = self.board.incoming(self.peer)
        self.board.up(self)

    def down(self, why: str) -> None:
        """Send and take nothing more, and drop what is half sent or half there."""
        if self.is_up:
            self.is_up = False
            self._unsent, self._frames = None, iter(())
            self._incoming = self.board.incoming(self.peer)
            self.board.down(self, why)

    def take(self, kind: bytes, data: memoryview) -> None:
        """What a frame is that came over a link that is up, besides greetings and refusals."""
        if kind == PROBE:
            return
        try:
            whole = self._incoming.add(kind, data)
            if whole is not None:
                envelope = whole.envelope
                message = Message(self.peer, envelope.key, envelope.head, whole.arrays())
                if not self.board.mailbox.put(message, envelope.held_bytes):
                    raise Flood
        except MessageError as error:
            self.board.malformed(self.peer, error)
        except Flood:
            why = flooded(self.peer, self.board.name)
            self.board.notices.tell(f"flood {self.peer}", f"{self.peer} was refused: {why}")
            self.refuse(why)

    def pump(self, outbox: Outbox) -> float | None:
        """Send what waits; the seconds after which to go on, None if nothing is left.

        Raises:
            GoneError: the peer is gone.
        """
        for _ in range(_BATCH):
            if self._unsent is None:
                self._unsent = next(self._frames, None)
            if self._unsent is not None:
                if not self.push(self._unsent):
                    return _FULL_S
                self._unsent = None
                continue
            message = outbox.take(self.peer)
            if message is None:
                return None
            self._frames = frames_of(message)
        return 0.0


class Board:
    """Which connections there are.

    Args:
        name: of this member.
        mailbox: gets what arrives.
        outbox: holds what is to be sent.
        notices: told what stops nothing.
    """

    def __init__(self, name: str, mailbox: Mailbox, outbox: Outbox, notices: Notices) -> None:
        self.name, self.mailbox, self.outbox, self.notices = name, mailbox, outbox, notices
        self._links: dict[str, list[Link]] = {}

    def incoming(self, peer: str) -> Incoming:
        """What takes in the messages of a new connection."""
        mailbox = self.mailbox
        return Incoming(mailbox.wants, lambda held_bytes: mailbox.has_room(peer, held_bytes))

    def up(self, link: Link) -> None:
        """A connection carries messages from now on."""
        links = self._links.setdefault(link.peer, [])
        links.append(link)
        if len(links) == 1:
            self.mailbox.found(link.peer)

    def down(self, link: Link, why: str) -> None:
        """A connection does no longer."""
        links = self._links[link.peer]
        links.remove(link)
        self.outbox.lost(link.peer, why)
        if links:
            self.mailbox.found(link.peer)
        else:
            del self._links[link.peer]

    def malformed(self, peer: str, error: MessageError) -> None:
        """Tell of what was dropped."""
        self.notices.tell(f"malformed {peer}", f"{peer} sent what was dropped: {error}")

    def pump(self) -> float | None:
        """Send what waits, to every peer; the seconds after which to go on."""
        patience_s: float | None = None
        for links in list(self._links.values()):
            link = links[0]
            try:
                more_s = link.pump(self.outbox)
            except GoneError:
                link.down(ENDED)
                more_s = 0.0
            if more_s is not None:
                patience_s = more_s if patience_s is None else min(patience_s, more_s)
        return patience_s


ENDED = "its connection ended: it was closed, killed, frozen or unplugged"
"""Why a peer is lost whose connection is."""
