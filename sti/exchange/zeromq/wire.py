"""What one connection carries: frames of at most 64 KiB, each a letter and what it says.

In: messages as bytes, or frames of a peer. Out: frames, or the messages that they make. Each frame
is a ZeroMQ message of its own: encryption and transfer of a large message overlap, a heartbeat does
not wait behind one, and what a stranger may send before the handshake ends is small. A message is
checked by its envelope, which comes first, before memory is taken for what follows. Pure: knows
nothing of sockets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sti.exchange.frames import (
    HEAD_LIMITS,
    PROTOCOL,
    Arriving,
    Encoded,
    MessageError,
    read_envelope,
)
from sti.json_fields import JsonFields
from sti.storage.json_input import JsonLimits, parse_json

CHUNK_BYTES = 1 << 16
"""Of what a frame holds beside its letter, at most."""
HELLO = b"H"
"""Who this is: the first frame of each side."""
REFUSED = b"R"
"""Why nothing more is taken of the peer."""
ENVELOPE_PART = b"e"
"""Bytes of an envelope that is longer than a frame."""
ENVELOPE = b"E"
"""The length of an envelope, or of the end of it, in four bytes, little endian; then that; then, of
a small message, the bytes of its arrays."""
DATA = b"D"
"""Bytes of arrays."""
PROBE = b"P"
"""Nothing: a try whether the peer is there."""
_LENGTH_BYTES = 4
_CONTROL_LIMITS = JsonLimits(1024, 16, 2)
_MOST_WHY = 300


class Hello(NamedTuple):
    """What each side of a connection says first."""

    name: str
    gives_way: bool = False
    """Whether it is to be refused while another connection has its name, instead of taking that
    one's place."""

    def frame(self) -> bytes:
        """As it is sent."""
        return HELLO + _dumped({"protocol": PROTOCOL, **self._asdict()})

    @classmethod
    def read(cls, data: memoryview) -> Hello:
        """Raises ``MessageError``."""
        fields = _fields(data, "hello")
        remedy = "install the same release on all devices"
        fields.require_version("protocol", PROTOCOL, remedy=remedy)
        return cls(fields.text("name"), fields.flag("gives_way"))


class Refusal(NamedTuple):
    """What a side says that takes nothing more from the other."""

    why: str
    gives_way: bool
    """Whether the other side is to come back later, and to give way to others of its name then."""

    def frame(self) -> bytes:
        """As it is sent."""
        return REFUSED + _dumped({"why": self.why[:_MOST_WHY], "gives_way": self.gives_way})

    @classmethod
    def read(cls, data: memoryview) -> Refusal:
        """Raises ``MessageError``."""
        fields = _fields(data, "refusal")
        why = "".join(letter if letter.isprintable() else "?" for letter in fields.text("why"))
        return cls(why[:_MOST_WHY], fields.flag("gives_way"))


def frames_of(encoded: Encoded) -> Iterator[bytes]:
    """The frames of a message; a small one is one frame."""
    envelope = encoded.envelope
    while len(envelope) > CHUNK_BYTES - _LENGTH_BYTES:
        yield ENVELOPE_PART + envelope[:CHUNK_BYTES]
        envelope = envelope[CHUNK_BYTES:]
    first = (ENVELOPE, len(envelope).to_bytes(_LENGTH_BYTES, "little"), envelope)
    if encoded.size_bytes <= CHUNK_BYTES - _LENGTH_BYTES:
        yield b"".join((*first, *encoded.arrays))
        return
    yield b"".join(first)
    for chunk in encoded.chunks(CHUNK_BYTES):
        yield b"".join((DATA, chunk))


class Flood(Exception):
    """A peer sends more than is taken."""


class Incoming:
    """The messages of one connection, from its frames. For one thread.

    Args:
        wants: whether messages of a key are kept.
        has_room: whether a message that takes so many bytes is taken from this peer now.
    """

    def __init__(self, wants: Callable[[str], bool], has_room: Callable[[int], bool]) -> None:
        self._wants, self._has_room = wants, has_room
        self._envelope = bytearray()
        self._arriving: Arriving | None = None
        self._skips = True

    def add(self, kind: bytes, data: memoryview) -> Arriving | None:
        """Take in an ``ENVELOPE``, ``ENVELOPE_PART`` or ``DATA`` frame; the message that is whole
        with it, if any.

        Raises:
            MessageError: it is malformed, and what belongs to the same message is skipped; or it is
                of another kind, and nothing else happens.
            Flood: there is no room for the message.
        """
        if kind not in (DATA, ENVELOPE, ENVELOPE_PART):
            raise MessageError(f"a frame of no kind: {kind!r}")
        arriving, self._arriving = self._arriving, None
        if kind == DATA:
            return self._go_on(arriving, data)
        if arriving is not None:
            raise self._skipped(f"message {arriving.envelope.key!r}: ends before its arrays do")
        rest = data[:0]
        if kind == ENVELOPE:
            end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
            data, rest = data[_LENGTH_BYTES:end], data[end:]
        if len(self._envelope) + data.nbytes > HEAD_LIMITS.most_bytes:
            raise self._skipped(f"envelope: more than {HEAD_LIMITS.most_bytes} bytes")
        self._envelope += data
        self._skips = False
        return self._begin(rest) if kind == ENVELOPE else None

    def _go_on(self, arriving: Arriving | None, data: memoryview) -> Arriving | None:
        if self._skips:
            return None
        if arriving is None:
            raise self._skipped("bytes of no message")
        try:
            arriving.add(data)
        except MessageError:
            self._skips = True
            raise
        return self._whole(arriving)

    def _begin(self, data: memoryview) -> Arriving | None:
        """The envelope is whole; so is the message, perhaps, with the first bytes of its arrays."""
        raw = bytes(self._envelope)
        self._envelope.clear()
        self._skips = True  # until the envelope has turned out to be sound
        envelope = read_envelope(raw)
        if not self._wants(envelope.key):
            return None
        if not self._has_room(envelope.held_bytes):
            raise Flood
        arriving = Arriving(envelope)
        arriving.add(data)
        self._skips = False
        return self._whole(arriving)

    def _whole(self, arriving: Arriving) -> Arriving | None:
        if arriving.is_whole:
            return arriving
        self._arriving = arriving
        return None

    def _skipped(self, why: str) -> MessageError:
        self._envelope.clear()
        self._skips = True
        return MessageError(why)


def _dumped(document: dict[str, object]) -> bytes:
    return json.dumps(document).encode("ascii")


def _fields(data: memoryview, where: str) -> JsonFields:
    try:
        document = parse_json(bytes(data), _CONTROL_LIMITS)
    except ValueError as error:
        raise MessageError(f"{where}: {error}") from error
    return JsonFields(document, where=where, error=MessageError)
