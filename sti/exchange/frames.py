"""Messages as bytes, and back: what every transport sends.

In: a key, a head and arrays, or bytes of a stranger. Out: a JSON document (the envelope) that says
what follows, then the bytes of each array, little endian in C order, joined; or the message again.
An envelope is checked, and so is known what its arrays will take, before memory is taken for them.
Nothing that arrives is run or unpickled. Knows nothing of peers or of what carries the bytes. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.errors import InputError, StiError
from sti.exchange.interface import FOUND, LOST
from sti.json_fields import JsonFields
from sti.storage.json_input import SMALL, JsonLimits, parse_json

PROTOCOL = 1
"""Of the bytes between members; those of other protocols are refused."""
DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64")
MOST_ARRAYS = 16
MOST_DIMENSIONS = 8
MOST_ARRAY_BYTES = 1 << 28
"""Of all arrays of one message together."""
MOST_KEY = 64
HEAD_LIMITS = JsonLimits(SMALL.most_bytes, SMALL.most_values, SMALL.most_depth + 1)
"""Of an envelope: its head is one level deeper than a document of its own would be."""
_OVERHEAD_BYTES = 2048
_JSON_FACTOR = 32
"""Bytes that a value takes, at most, for each byte of JSON it was made of: small objects do."""


class MessageError(StiError):
    """What a peer sent is no message; told and dropped, never raised to a caller."""


class ArrayPlace(NamedTuple):
    """An array that is to follow."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Envelope(NamedTuple):
    """What a message says before its arrays."""

    key: str
    head: Mapping[str, Any]
    arrays: tuple[ArrayPlace, ...]
    json_bytes: int

    @property
    def array_bytes(self) -> int:
        """Of all arrays together."""
        return sum(array.size_bytes for array in self.arrays)

    @property
    def held_bytes(self) -> int:
        """What the message takes in memory, at most."""
        return self.array_bytes + _JSON_FACTOR * self.json_bytes + _OVERHEAD_BYTES


class Encoded(NamedTuple):
    """A message as bytes of its own; immutable."""

    envelope: bytes
    arrays: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return len(self.envelope) + sum(map(len, self.arrays))

    def chunks(self, most_bytes: int) -> Iterator[memoryview]:
        """The bytes of the arrays, in order, in pieces; views of this message."""
        for array in self.arrays:
            view = memoryview(array)
            for start in range(0, len(view), most_bytes):
                yield view[start : start + most_bytes]


def encode(key: str, head: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> Encoded:
    """A message as bytes; everything is copied.

    Raises:
        InputError: what could not be read again: says which and why.
    """
    check_key(key)
    given = [np.asarray(array) for array in arrays]
    if len(given) > MOST_ARRAYS:
        raise InputError(f"message {key!r}: {len(given)} arrays are more than {MOST_ARRAYS}")
    for number, array in enumerate(given):
        if array.dtype.name not in DTYPES:
            known = ", ".join(DTYPES)
            raise InputError(
                f"message {key!r}: array {number} is of {array.dtype}, which is not sent; "
                f"convert it to one of {known}"
            )
        if array.ndim > MOST_DIMENSIONS:
            raise InputError(
                f"message {key!r}: array {number} has {array.ndim} dimensions, more than the "
                f"{MOST_DIMENSIONS} that are sent; reshape it"
            )
        if not array.nbytes and not _is_countable(array.shape):
            raise InputError(f"message {key!r}: array {number} has the shape {array.shape}")
    total = sum(array.nbytes for array in given)
    if total > MOST_ARRAY_BYTES:
        raise InputError(
            f"message {key!r}: {total} bytes of arrays are more than {MOST_ARRAY_BYTES}; send "
            "them in several messages"
        )
    document = {
        "protocol": PROTOCOL,
        "key": key,
        "head": dict(head),
        "arrays": [{"dtype": array.dtype.name, "shape": list(array.shape)} for array in given],
    }
    try:
        raw = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
        parse_json(raw, HEAD_LIMITS)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"message {key!r}: its head cannot be sent: {error}") from error
    return Encoded(raw, tuple(_little_endian(array).tobytes() for array in given))


def check_key(key: str) -> None:
    """Refuse what is no key of a message.

    Raises:
        InputError: says what keys are.
    """
    if not _is_key(key):
        raise InputError(
            f"{key!r:.80} is no key of a message: 1 to {MOST_KEY} printable ASCII characters, "
            f"neither {LOST!r} nor {FOUND!r}"
        )


def read_envelope(raw: bytes) -> Envelope:
    """What a peer says that it sends.

    Raises:
        MessageError: it is malformed, of another protocol, or more than is taken.
    """
    try:
        document = parse_json(raw, HEAD_LIMITS)
    except ValueError as error:
        raise MessageError(f"envelope: {error}") from error
    fields = JsonFields(document, where="envelope", error=MessageError)
    fields.only("protocol", "key", "head", "arrays")
    fields.require_version("protocol", PROTOCOL, remedy="install the same release on all devices")
    key = fields.text("key")
    if not _is_key(key):
        raise fields.fail("key", f"a key of 1 to {MOST_KEY} printable ASCII characters")
    places = tuple(map(_place, _few(fields.objects("arrays"))))
    head = fields.object("head").members()
    envelope = Envelope(key, head, places, len(raw))
    if envelope.array_bytes > MOST_ARRAY_BYTES:
        raise MessageError(
            f"envelope: {envelope.array_bytes} bytes of arrays are more than {MOST_ARRAY_BYTES}"
        )
    return envelope


class Arriving:
    """The arrays of a message, as their bytes arrive. For one thread.

    Args:
        envelope: memory for its arrays is taken at once.
    """

    __slots__ = ("_arrays", "_filled", "_left", "envelope")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self._arrays = tuple(
            np.empty(place.shape, np.dtype(place.dtype).newbyteorder("<"))
            for place in envelope.arrays
        )
        rows = [array.reshape(-1).view(np.uint8) for array in self._arrays if array.nbytes]
        self._left = [memoryview(row) for row in reversed(rows)]
        self._filled = 0

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are there."""
        return not self._left

    def add(self, data: bytes | memoryview) -> None:
        """Take in the bytes that come next; copied.

        Raises:
            MessageError: they are more than are missing.
        """
        rest = memoryview(data)
        while rest.nbytes:
            if not self._left:
                raise MessageError(
                    f"message {self.envelope.key!r}: more bytes than the "
                    f"{self.envelope.array_bytes} of its arrays"
                )
            row = self._left[-1]
            count = min(len(row) - self._filled, rest.nbytes)
            row[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
            if self._filled == len(row):
                self._left.pop()
                self._filled = 0

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The arrays; the caller's from now on.

        Raises:
            MessageError: bytes are missing.
        """
        if self._left:
            raise MessageError(f"message {self.envelope.key!r}: ends before its arrays do")
        return tuple(_native(array) for array in self._arrays)


def _place(fields: JsonFields) -> ArrayPlace:
    fields.only("dtype", "shape")
    dtype, shape = fields.text("dtype"), fields.integers("shape")
    if dtype not in DTYPES:
        raise fields.fail("dtype", f"one of {', '.join(DTYPES)}")
    if len(shape) > MOST_DIMENSIONS:
        raise fields.fail("shape", f"of at most {MOST_DIMENSIONS} dimensions")
    if not _is_countable(shape):
        raise fields.fail("shape", f"of at most {MOST_ARRAY_BYTES} items")
    return ArrayPlace(dtype, shape)


def _few(arrays: list[JsonFields]) -> list[JsonFields]:
    if len(arrays) > MOST_ARRAYS:
        raise MessageError(f"envelope: {len(arrays)} arrays are more than {MOST_ARRAYS}")
    return arrays


def _is_countable(shape: Sequence[int]) -> bool:
    """Whether NumPy takes a shape: it counts all dimensions, even where another one is 0."""
    return math.prod(max(1, size) for size in shape) <= MOST_ARRAY_BYTES


def _is_key(key: object) -> bool:
    return (
        isinstance(key, str)
        and 0 < len(key) <= MOST_KEY
        and key.isascii()
        and key.isprintable()
        and key not in (LOST, FOUND)
    )


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
