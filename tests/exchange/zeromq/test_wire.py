"""Frames of a connection: messages come out whole, whatever else a peer sends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.exchange.frames import HEAD_LIMITS, Arriving, MessageError, encode
from sti.exchange.zeromq.wire import (
    CHUNK_BYTES,
    DATA,
    ENVELOPE,
    ENVELOPE_PART,
    Flood,
    Hello,
    Incoming,
    Refusal,
    frames_of,
)

MOST_BYTES = 300_000


def incoming() -> Incoming:
    return Incoming(lambda key: key != "forgotten", lambda held_bytes: held_bytes < MOST_BYTES)


def taken(into: Incoming, frame: bytes) -> Arriving | None:
    return into.add(frame[:1], memoryview(frame)[1:])


def arrived(into: Incoming, frames: Iterator[bytes] | list[bytes]) -> Iterator[Arriving]:
    for frame in frames:
        whole = taken(into, frame)
        if whole is not None:
            yield whole


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("head", [{}, {"long": "x" * 200_000}])
def test_messages_travel_in_frames_of_bounded_size(size: int, head: dict[str, str]) -> None:
    rows = np.arange(size, dtype=np.uint8)
    encoded = encode("k", head, [rows, rows[:5]])
    frames = list(frames_of(encoded))
    assert max(map(len, frames)) <= CHUNK_BYTES + 1
    into = Incoming(lambda _: True, lambda _: True)
    whole = [*arrived(into, frames), *arrived(into, frames)]
    for message in whole:
        assert message.envelope.head == head
        assert [array.tobytes() for array in message.arrays()] == list(encoded.arrays)
    assert len(whole) == 2


def framed(envelope: bytes, data: bytes = b"") -> bytes:
    return ENVELOPE + len(envelope).to_bytes(4, "little") + envelope + data


SMALL = encode("k", {"n": 1}, [np.arange(9, dtype=np.int32)])
GOOD = [framed(SMALL.envelope), DATA + SMALL.arrays[0]]
"""As a larger message is sent."""


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([framed(b"{}")], "protocol"),
        ([framed(b"[" * 50_000)], "nests deeper|values"),
        ([GOOD[0], DATA + bytes(35), GOOD[0]], "ends before its arrays do"),
        ([GOOD[0], DATA + bytes(37)], "more bytes than the 36"),
        ([framed(SMALL.envelope, bytes(37))], "more bytes than the 36"),
        ([ENVELOPE + b"\xff\xff\xff\xff" + SMALL.envelope + SMALL.arrays[0]], "envelope"),
        ([ENVELOPE + b"\1"], "envelope"),
        ([*GOOD, DATA + b"more"], "bytes of no message"),
        ([ENVELOPE_PART + b"{", DATA + b"more"], "bytes of no message"),
        (
            [ENVELOPE_PART + bytes(CHUNK_BYTES)] * (HEAD_LIMITS.most_bytes // CHUNK_BYTES + 1),
            "more",
        ),
    ],
    ids=range(10),
)
def test_what_is_malformed_is_dropped_with_all_of_it_and_the_next_message_arrives(
    bad: list[bytes], said: str
) -> None:
    into = incoming()
    with pytest.raises(MessageError, match=said):
        list(arrived(into, bad))
    assert not list(arrived(into, [DATA + b"rest", DATA]))  # of what was dropped, told once
    assert [whole.envelope.key for whole in arrived(into, GOOD)] == ["k"]


def test_messages_of_forgotten_keys_take_no_memory_and_the_next_one_arrives() -> None:
    into = incoming()
    large = list(frames_of(encode("forgotten", {}, [np.zeros(2 * MOST_BYTES, np.int8)])))
    assert [whole.envelope.key for whole in arrived(into, [*large, *GOOD])] == ["k"]


def test_a_message_without_room_is_refused_before_memory_is_taken() -> None:
    envelope = next(frames_of(encode("k", {}, [np.zeros(MOST_BYTES, np.int8)])))
    with pytest.raises(Flood):
        taken(incoming(), envelope)


def test_a_frame_of_no_kind_disturbs_no_message() -> None:
    into = incoming()
    assert taken(into, GOOD[0]) is None
    for frame in (b"", b"?", b"?more"):
        with pytest.raises(MessageError, match="of no kind"):
            taken(into, frame)
    assert taken(into, GOOD[1]) is not None


def test_a_small_message_is_one_frame_and_a_head_may_take_several() -> None:
    assert list(frames_of(SMALL)) == [framed(SMALL.envelope, SMALL.arrays[0])]
    for size in (CHUNK_BYTES - 80, CHUNK_BYTES - 4, CHUNK_BYTES, 2 * CHUNK_BYTES):
        encoded = encode("k", {"long": "x" * size}, [np.ones(3, np.int8)])
        into = Incoming(lambda _: True, lambda _: True)
        (whole,) = arrived(into, list(frames_of(encoded)))
        assert len(whole.envelope.head["long"]) == size and whole.arrays()[0].tolist() == [1, 1, 1]


@given(
    st.lists(
        st.sampled_from(GOOD)
        | st.binary(max_size=9).map(lambda data: DATA + data)
        | st.binary(max_size=9).map(lambda data: ENVELOPE + data)
        | st.binary(max_size=40).map(lambda data: framed(SMALL.envelope, data))
        | st.just(ENVELOPE_PART + SMALL.envelope[:20]),
        max_size=12,
    )
)
def test_frames_of_strangers_make_whole_messages_or_none(frames: list[bytes]) -> None:
    into = incoming()
    for frame in frames:
        try:
            whole = taken(into, frame)
        except MessageError:
            continue
        if whole is not None:
            assert whole.envelope.key == "k" and whole.arrays()[0].nbytes == 36


@pytest.mark.parametrize("gives_way", [False, True])
def test_hellos_read_back(gives_way: bool) -> None:
    hello = Hello("board", gives_way)
    assert Hello.read(memoryview(hello.frame())[1:]) == hello


@given(st.text(max_size=400), st.booleans())
def test_refusals_read_back_without_what_a_terminal_would_obey(why: str, later: bool) -> None:
    if not why.isascii():
        why = why.encode("ascii", "replace").decode()
    found = Refusal.read(memoryview(Refusal(why, later).frame())[1:])
    assert found.gives_way == later and found.why.isprintable()
    assert len(found.why) <= 300 and found.why[:9] == "".join(
        letter if letter.isprintable() else "?" for letter in why[:9]
    )


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[1]",
        json.dumps({"protocol": 1, "name": 1}).encode(),
        json.dumps({"protocol": 2, "name": "a"}).encode(),
        json.dumps({"protocol": 1, "name": "a" * 2000}).encode(),
    ],
)
def test_greetings_that_are_none_are_malformed(document: bytes) -> None:
    with pytest.raises(MessageError):
        Hello.read(memoryview(document))
    with pytest.raises(MessageError):
        Refusal.read(memoryview(document))
    assert Hello.read(memoryview(Hello("a").frame())[1:]) == Hello("a")
