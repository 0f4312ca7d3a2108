"""Strangers and peers that send what they should not: it is dropped, and memory is bounded."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from sti.errors import PeerLostError
from sti.exchange.frames import encode
from sti.exchange.interface import FOUND, LOST
from sti.exchange.zeromq import sockets
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.notices import Notices
from sti.exchange.zeromq.wire import CHUNK_BYTES, DATA, ENVELOPE, Hello, frames_of
from tests.exchange.members import keys_of, soon
from tests.exchange.zeromq.raw import RawPeer

LOCAL = "127.0.0.1:0"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""What a connection of ZMTP 3.1 begins with."""
Told = queue.SimpleQueue[str]


@pytest.fixture
def told() -> Told:
    return queue.SimpleQueue()


@pytest.fixture
def closed() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def framed(envelope: bytes) -> bytes:
    return ENVELOPE + len(envelope).to_bytes(4, "little") + envelope


def listening(closed: ExitStack, told: Told, **options: int) -> tuple[ZmqExchange, RawPeer]:
    """A member, and a peer that has its keys and was found, and may say what it likes."""
    keys = keys_of("ab")
    member = ZmqExchange(
        "a", listen=LOCAL, keys=keys["a"], notify=told.put, silence_s=10, **options
    )
    closed.callback(member.close)
    peer = closed.enter_context(RawPeer(member.address, keys["b"], server="a"))
    peer.send(Hello("b").frame())
    assert peer.receive()[:1] == b"H"
    member.receive(key=FOUND, deadline=soon())
    return member, peer


def memory_bytes() -> int:
    """What this process takes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize(
    "bad",
    [
        [b""],
        [b"?"],
        [b"H{}"],
        [DATA + b"bytes of nothing"],
        [ENVELOPE],
        [framed(b"\x80\x04N.")],
        [framed(b'{"protocol":1,"key":"lost","head":{},"arrays":[]}')],
        [framed(b'{"protocol":1,"key":"k","head":{},"arrays":[{"dtype":"O","shape":[1]}]}')],
        [framed(b"[" * (CHUNK_BYTES - 4))],
        [framed(encode("k", {}, [np.zeros(9, np.int8)]).envelope), DATA + bytes(10)],
    ],
    ids=range(10),
)
def test_what_is_no_message_is_dropped_and_told_and_the_peer_stays(
    closed: ExitStack, told: Told, bad: list[bytes]
) -> None:
    member, peer = listening(closed, told)
    peer.send(*bad, *peer.message("good"))
    assert member.receive(deadline=soon())[:2] == ("b", "good")
    if bad[0] != DATA + b"bytes of nothing":  # as what follows a message that was dropped
        assert told.get(timeout=30).startswith("b sent what was dropped: ")


def test_messages_in_parts_are_dropped_whole(closed: ExitStack, told: Told) -> None:
    member, peer = listening(closed, told)
    peer.send_parts(peer.message("bad", CHUNK_BYTES))
    peer.send(*peer.message("good"))
    assert member.receive(deadline=soon()).key == "good"
    assert told.get(timeout=30) == "b sent what was dropped: 2 parts where there is one"


def test_a_frame_that_is_too_large_ends_the_connection(closed: ExitStack, told: Told) -> None:
    member, peer = listening(closed, told)
    peer.send(DATA + bytes(2 * CHUNK_BYTES))
    assert member.receive(key=LOST, deadline=soon()).peer == "b"


def test_a_peer_that_floods_is_refused_and_its_room_is_bounded(
    closed: ExitStack, told: Told
) -> None:
    member, peer = listening(closed, told, most_bytes=10_000_000)
    for _ in range(40):
        peer.send(*peer.message("k", 1_000_000))
    assert (
        "b sent more than a has room for" in member.receive(key=LOST, deadline=soon()).head["why"]
    )
    assert "b was refused: b sent more than a has room for" in told.get(timeout=30)
    refusal = peer.receive()
    assert refusal[:1] == b"R" and b"has room for" in refusal
    held = 0
    while True:
        try:
            held += member.receive(key="k", peer="b", deadline=soon()).arrays[0].nbytes
        except PeerLostError:
            break
    assert 8_000_000 < held <= 10_000_000


def test_messages_without_arrays_are_bounded_too(closed: ExitStack, told: Told) -> None:
    member, peer = listening(closed, told, most_bytes=1_000_000)
    frames = list(frames_of(encode("k", {}, [])))
    for _ in range(1000):
        peer.send(*frames)
    assert member.receive(key=LOST, deadline=soon()).peer == "b"
    assert peer.receive()[:1] == b"R"


def test_a_peer_that_floods_by_honest_means_is_told_and_may_come_back(closed: ExitStack) -> None:
    a = closed.enter_context(closing(ZmqExchange("a", listen=LOCAL, most_bytes=1_000_000)))
    b = closed.enter_context(closing(ZmqExchange("b", peers={"a": str(a.address)})))
    b.receive(key=FOUND, deadline=soon())
    for _ in range(3):
        b.send("a", "k", arrays=[np.zeros(400_000, np.int8)])
    lost = b.receive(key=LOST, deadline=soon())
    assert "refuses this device: b sent more than a has room for" in lost.head["why"]
    for _ in range(2):
        a.receive(key="k", peer="b", deadline=soon())
    b.receive(key=FOUND, deadline=soon())
    b.send("a", "again")
    assert a.receive(key="again", deadline=soon()).peer == "b"


def test_a_flood_of_strangers_takes_bounded_memory_and_stops_nobody(
    closed: ExitStack, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_S", 0.3)
    keys = keys_of("ab")
    a = ZmqExchange("a", listen=LOCAL, keys=keys["a"], notify=told.put, silence_s=10)
    closed.callback(a.close)
    b = ZmqExchange("b", peers={"a": str(a.address)}, keys=keys["b"], silence_s=10)
    closed.callback(b.close)
    b.receive(key=FOUND, deadline=soon())
    before_bytes = memory_bytes()
    count, frame = 100, b"\x06" + CHUNK_BYTES.to_bytes(8, "big") + bytes(CHUNK_BYTES - 1)
    strangers = []
    for _ in range(count):
        stranger = socket.create_connection(("127.0.0.1", int(str(a.address).split(":")[1])))
        closed.callback(stranger.close)
        stranger.settimeout(30)
        stranger.sendall(GREETING + frame)  # a frame of the handshake that never ends
        strangers.append(stranger)
    assert memory_bytes() - before_bytes < count * 3 * CHUNK_BYTES
    b.send("a", "k", arrays=[np.zeros(1_000_000, np.int8)])
    assert a.receive(key="k", deadline=soon()).peer == "b"
    for stranger in strangers:
        while stranger.recv(1 << 16):
            pass  # its greeting; then it is hung up on
    assert "something connected that failed the handshake" in told.get(timeout=30)
    assert told.empty()  # told once, not a hundred times


def test_a_stranger_that_claims_a_huge_frame_is_hung_up_on_at_once(
    closed: ExitStack, told: Told
) -> None:
    a, _ = listening(closed, told)
    host, port = str(a.address).split(":")
    with socket.create_connection((host, int(port)), timeout=30) as stranger:
        stranger.sendall(GREETING + b"\x06" + (1 << 30).to_bytes(8, "big"))
        try:
            while stranger.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass


def test_bytes_that_are_no_protocol_harm_nothing(closed: ExitStack, told: Told) -> None:
    member, peer = listening(closed, told)
    host, port = str(member.address).split(":")
    for sent in (b"GET / HTTP/1.1\r\n\r\n", bytes(5000), os.urandom(5000), b"\xff" * 5000, b""):
        with socket.create_connection((host, int(port)), timeout=30) as stranger:
            stranger.sendall(sent)
    peer.send(*peer.message("good"))
    assert member.receive(deadline=soon()).key == "good"


def test_notices_of_a_kind_are_told_once_in_a_while_and_counted() -> None:
    lines: list[str] = []
    notices = Notices(lines.append, every_s=1000)
    for number in range(200):
        notices.tell("one", f"one {number}")
        notices.tell(f"kind {number}", f"another {number}")
    assert lines[0] == "one 0" and len(lines) == 65
    often = Notices(lines.append, every_s=0)
    often.tell("one", "again")
    often.tell("one", "and again")
    assert lines[-2:] == ["again", "and again"]
