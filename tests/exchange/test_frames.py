"""Messages as bytes: what goes in comes out, and what is no message is refused before it costs."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sti.errors import InputError
from sti.exchange.frames import (
    DTYPES,
    HEAD_LIMITS,
    MOST_ARRAY_BYTES,
    Arriving,
    Encoded,
    MessageError,
    encode,
    read_envelope,
)

KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(max_size=9)
    # The parser of JSON from outside refuses what reaches beyond floats; so does the sender.
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@st.composite
def some_arrays(draw: st.DrawFn) -> NDArray[Any]:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    raw = np.random.default_rng(draw(st.integers(0, 9))).bytes(int(np.prod(shape)) * 8)
    dtype = draw(st.sampled_from([*DTYPES, ">f4", ">i8"]))
    items = np.frombuffer(raw, np.dtype(dtype))[: int(np.prod(shape))].reshape(shape)
    return items.T if draw(st.booleans()) else items


def read_again(encoded: Encoded, chunk_bytes: int) -> tuple[Arriving, tuple[NDArray[Any], ...]]:
    arriving = Arriving(read_envelope(encoded.envelope))
    for chunk in encoded.chunks(chunk_bytes):
        assert not arriving.is_whole
        arriving.add(chunk)
    assert arriving.is_whole
    return arriving, arriving.arrays()


@given(
    KEYS.filter(lambda key: key not in ("lost", "found")),
    st.dictionaries(st.text(max_size=9), VALUES, max_size=4),
    st.lists(some_arrays(), max_size=5),
    st.integers(1, 99),
)
def test_a_message_reads_back_the_same_in_chunks_of_any_size(
    key: str, head: dict[str, Any], arrays: list[NDArray[Any]], chunk_bytes: int
) -> None:
    arriving, found = read_again(encode(key, head, arrays), chunk_bytes)
    assert (arriving.envelope.key, arriving.envelope.head) == (key, head)
    for sent, got in zip(arrays, found, strict=True):
        assert got.dtype == sent.dtype.newbyteorder("=") and got.shape == sent.shape
        assert got.tobytes() == sent.astype(sent.dtype.newbyteorder("=")).tobytes()
        assert got.flags.writeable and got.flags.c_contiguous


@given(st.integers(0, 3), st.binary(max_size=30))
def test_bytes_of_arrays_are_neither_missing_nor_too_many(short: int, more: bytes) -> None:
    encoded = encode("k", {}, [np.zeros(3, np.int8), np.zeros((0, 2), np.int8)])
    arriving = Arriving(read_envelope(encoded.envelope))
    arriving.add(bytes(3 - short))
    if short:
        with pytest.raises(MessageError, match="ends before"):
            arriving.arrays()
    elif more:
        with pytest.raises(MessageError, match="more bytes than the 3"):
            arriving.add(more)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(2), "float64.*convert it to one of float32"),
        (np.array([None]), "object"),
        (np.array(["text"]), "U4"),
        (np.zeros(2, bool), "bool"),
        (np.zeros((1,) * 9, np.int8), "9 dimensions"),
        (np.zeros((0, 1 << 40), np.int8), "the shape"),
        (np.broadcast_to(np.int8(0), (MOST_ARRAY_BYTES + 1,)), "several messages"),
    ],
)
def test_arrays_that_cannot_be_sent_are_refused(array: NDArray[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        encode("k", {}, [array])


def test_more_arrays_than_are_taken_are_refused() -> None:
    with pytest.raises(InputError, match="17 arrays"):
        encode("k", {}, [np.zeros(1, np.int8)] * 17)


@pytest.mark.parametrize("key", ["", "k" * 65, "kéy", "a\nb", "lost", "found"])
def test_keys_that_are_none_are_refused(key: str) -> None:
    with pytest.raises(InputError, match="no key of a message"):
        encode(key, {}, [])


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"in": found}
    return found


@pytest.mark.parametrize(
    "head",
    [
        {"value": float("nan")},
        {"value": b"bytes"},
        {"value": np.float32(1)},
        {"half": "\ud800"},
        {"long": "x" * HEAD_LIMITS.most_bytes},
        {"many": [0] * HEAD_LIMITS.most_values},
        {1: "one", "1": "again"},
        nested(9),
        nested(2000),
    ],
    ids=range(9),
)
def test_heads_that_no_peer_would_take_are_refused(head: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="its head cannot be sent"):
        encode("k", head, [])


SOUND = {"protocol": 1, "key": "k", "head": {}, "arrays": [{"dtype": "int8", "shape": [2]}]}


def changed(**fields: Any) -> bytes:
    return json.dumps({**SOUND, **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "envelope"),
        (b"\xff\xfe", "envelope"),
        (b"[]", "expected an object"),
        (json.dumps(SOUND).encode()[:-1], "envelope"),
        (changed()[:-1] + b',"key":"k"}', "twice"),
        (changed(protocol=2), "newer.*same release"),
        (changed(protocol="1"), "protocol"),
        (changed(more=1), "unknown field"),
        (changed(key=1), "key"),
        (changed(key="lost"), "key"),
        (changed(key="x" * 65), "key"),
        (changed(head=[]), "head"),
        (changed(head=nested(9)), "nests deeper"),
        (b"[" * 100_000, "nests deeper|values"),
        (changed(head={"a": "x" * HEAD_LIMITS.most_bytes}), "bytes are more than"),
        (changed(arrays={}), "arrays"),
        (changed(arrays=[{"dtype": "int8", "shape": [1]}] * 17), "17 arrays"),
        (changed(arrays=[{"dtype": "object", "shape": [1]}]), "dtype"),
        (changed(arrays=[{"dtype": ">f4", "shape": [1]}]), "dtype"),
        (changed(arrays=[{"dtype": "int8"}]), "shape"),
        (changed(arrays=[{"dtype": "int8", "shape": [-1]}]), "shape"),
        (changed(arrays=[{"dtype": "int8", "shape": [True]}]), "shape"),
        (changed(arrays=[{"dtype": "int8", "shape": [1.0]}]), "shape"),
        (changed(arrays=[{"dtype": "int8", "shape": [1] * 9}]), "dimensions"),
        (changed(arrays=[{"dtype": "int8", "shape": [1 << 62, 4]}]), "shape"),
        (changed(arrays=[{"dtype": "int8", "shape": [0, 1 << 40]}]), "shape"),
        (changed(arrays=[{"dtype": "float32", "shape": [MOST_ARRAY_BYTES]}]), "bytes of arrays"),
        (changed(arrays=[{"dtype": "int8", "shape": [1 << 27]}] * 3), "bytes of arrays"),
    ],
)
def test_what_is_no_message_is_refused_before_memory_is_taken(raw: bytes, said: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MessageError, match=said):
            read_envelope(raw)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 8_000_000


@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | VALUES.map(json.dumps).map(str.encode)
)
def test_bytes_of_strangers_are_messages_or_refused(raw: bytes) -> None:
    try:
        read_envelope(raw)
    except MessageError:
        return


@given(st.dictionaries(st.sampled_from([*SOUND, "more"]), VALUES))
def test_fields_of_strangers_are_messages_or_refused(fields: dict[str, Any]) -> None:
    try:
        envelope = read_envelope(changed(**fields))
    except MessageError:
        return
    assert Arriving(envelope).envelope.array_bytes <= MOST_ARRAY_BYTES
    assert envelope.held_bytes >= envelope.array_bytes + envelope.json_bytes
