"""The wire format of Protocol Buffers: fields of a number and a type, one after the other.

In: the bytes of a message. Out: its fields, and the bytes of a message of such fields. Malformed
bytes raise ``ValueError``. Knows nothing of what the fields mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT = 10

Field = tuple[int, int, int | bytes]
"""Number, wire type, and value: an int for a varint, else bytes."""


def fields(raw: bytes) -> Iterator[Field]:
    """The fields of a message, in their order."""
    place = 0
    while place < len(raw):
        tag, place = _read_varint(raw, place)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        if wire == _VARINT:
            value, place = _read_varint(raw, place)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, place = _read_varint(raw, place)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")
        if length > len(raw) - place:
            raise ValueError("it ends in the middle of a field")
        yield number, wire, raw[place : place + length]
        place += length


def byte_fields(raw: bytes) -> list[tuple[int, bytes]]:
    """The fields of a message in which every field is of bytes: numbers and values, in their order.

    For messages that there are many of: several times as fast as ``fields``, and numbers above 15
    are refused as well.
    """
    found, place, end = [], 0, len(raw)
    while place < end:
        tag = raw[place]
        if tag & 0x87 != _BYTES:
            raise ValueError("a field is not of bytes, or has an unknown number")
        if place + 1 == end:
            raise ValueError("it ends in the middle of a field")
        length = raw[place + 1]
        if length < 0x80:
            place += 2
        else:
            length, place = _read_varint(raw, place + 1)
        stop = place + length
        if stop > end:
            raise ValueError("it ends in the middle of a field")
        found.append((tag >> 3, raw[place:stop]))
        place = stop
    return found


def _read_varint(raw: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index in range(_MOST_VARINT):
        if place + index >= len(raw):
            raise ValueError("it ends in the middle of a number")
        byte = raw[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number is too long")


def bytes_of(value: int | bytes) -> bytes:
    """The value of a field of bytes."""
    if isinstance(value, int):
        raise ValueError("a field is a number instead of bytes")
    return value


def signed(value: int | bytes) -> int:
    """The value of a field of a signed number of 64 bits."""
    if not isinstance(value, int):
        raise ValueError("a field is bytes instead of a number")
    return value - (1 << 64) if value >= 1 << 63 else value


def encoded(parts: Iterable[Field]) -> bytes:
    """The bytes of a message of such fields."""
    found = []
    for number, wire, value in parts:
        if isinstance(value, int):
            found.append(integer(number, value))
        elif wire == _BYTES:
            found.append(field(number, value))
        else:
            found.append(_varint(number << 3 | wire) + value)
    return b"".join(found)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def integer(number: int, value: int) -> bytes:
    """The bytes of a field of a number, which may be negative."""
    return _varint(number << 3 | _VARINT) + _varint(value % (1 << 64))


def field(number: int, value: bytes) -> bytes:
    """The bytes of a field of bytes."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def real(number: int, value: float) -> bytes:
    """The bytes of a field of a number of single precision."""
    return _varint(number << 3 | _FIXED32) + struct.pack("<f", value)


def text(number: int, value: str) -> bytes:
    """The bytes of a field of text."""
    return field(number, value.encode())
