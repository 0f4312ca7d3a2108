"""Readers of what other devices send, and of the files with their keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import zmq

from sti.errors import InputError
from sti.exchange.frames import MOST_ARRAY_BYTES, MessageError, encode, read_envelope
from sti.exchange.zeromq.keys import Keys, make_keys
from sti.exchange.zeromq.wire import (
    CHUNK_BYTES,
    HELLO,
    REFUSED,
    Flood,
    Hello,
    Incoming,
    Refusal,
    frames_of,
)
from tests.fuzz import sources
from tests.fuzz.target import Target, must

_ROOM_BYTES = 1 << 20
_LENGTH_BYTES = 2
"""Of a frame, before it, in an input of several."""
_HEAD = {"step": 3, "plan": {"layers": [0, 5], "bits": 4}, "why": "late", "ok": True, "s": 0.25}


def _envelope(data: bytes) -> None:
    envelope = read_envelope(data)
    must(envelope.array_bytes <= MOST_ARRAY_BYTES, "arrays are bounded")
    must(envelope.held_bytes >= envelope.array_bytes + len(data), "all is counted")
    again = read_envelope(encode(envelope.key, envelope.head, ()).envelope)
    must((again.key, again.head) == (envelope.key, envelope.head), "what is read can be sent on")


def _envelopes() -> list[bytes]:
    arrays = [np.zeros((2, 3), np.float32), np.zeros((), np.int8)]
    return [encode("run 7", _HEAD, arrays).envelope, encode("k", {}, ()).envelope]


def _frames(data: bytes) -> None:
    """All frames of a connection, as whoever reads them does."""
    into = Incoming(lambda key: key != "forgotten", lambda held_bytes: held_bytes < _ROOM_BYTES)
    for frame in _split(data):
        kind, rest = frame[:1], memoryview(frame)[1:]
        try:
            if kind == HELLO:
                Hello.read(rest)
            elif kind == REFUSED:
                must(Refusal.read(rest).why.isprintable(), "a terminal obeys nothing of it")
            else:
                whole = into.add(kind, rest)
                if whole is not None:
                    held = sum(array.nbytes for array in whole.arrays())
                    must(held == whole.envelope.array_bytes < _ROOM_BYTES, "there was room")
        except (MessageError, Flood):
            continue


def _split(data: bytes) -> Iterator[bytes]:
    while data:
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
        yield data[_LENGTH_BYTES:end]
        data = data[end:]


def _joined(frames: Sequence[bytes]) -> bytes:
    return b"".join(len(frame).to_bytes(_LENGTH_BYTES, "little") + frame for frame in frames)


def _connections() -> list[bytes]:
    small = list(frames_of(encode("k", _HEAD, [np.arange(9, dtype=np.float16)])))
    large = list(frames_of(encode("k", {}, [np.zeros(CHUNK_BYTES, np.int8)])))
    cut = [frame[:99] for frame in large]
    gone = list(frames_of(encode("forgotten", {}, [np.zeros(4, np.int8)])))
    greetings = [Hello("board").frame(), Refusal("it is late", gives_way=False).frame()]
    return [_joined([*greetings, *small, *gone, *small]), _joined([*cut, *small])]


def _key(data: bytes) -> None:
    """The same bytes as a secret key and as the public key of another device."""
    folder = sources.place() / "keys"
    make_keys(folder, [])
    for name in ("controller.key_secret", "board.key"):
        sources.written(f"keys/{name}", data).chmod(0o600)
        try:
            keys = Keys.load(folder)
        except InputError as error:
            must(name in str(error) or "board" in str(error), "the file is named")
        else:
            must(zmq.curve_public(keys.secret) == keys.public[keys.name], "keys belong together")
            must(all(len(key) == 40 for key in keys.public.values()), "keys are whole")
        for path in folder.iterdir():
            path.unlink()
        make_keys(folder, [])


def _keys() -> list[bytes]:
    folder = sources.place() / "made keys"
    make_keys(folder, ["board"])
    return [(folder / name).read_bytes() for name in ("controller.key_secret", "board.key")]


def targets() -> Sequence[Target]:
    """The targets of this module."""
    words = ("protocol", "key", "head", "arrays", "dtype", "shape", "float32", "int8", "lost")
    return (
        Target("envelope", _envelope, _envelopes, "json", words),
        Target("frames", _frames, _connections, "bytes", ("H", "R", "e", "E", "D", *words)),
        Target("key", _key, _keys, "bytes", ("public-key", "secret-key", "metadata", "curve")),
    )
