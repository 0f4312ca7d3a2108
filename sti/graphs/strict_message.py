"""A message of Protocol Buffers that may have no fields but those that are expected.

In: its bytes, and how often which fields may occur. Out: their values, or ``Refused``. Readers
differ in what they make of unknown fields, of several where there should be one, and of values of
another type: here they are errors. Knows nothing of what the fields mean.
"""

from __future__ import annotations

from collections.abc import Mapping

from sti.graphs.wire import fields

_VARINT, _BYTES = 0, 2
_NONE: Mapping[int, int] = {}


class Refused(ValueError):
    """What is wrong with a graph, as the rest of a sentence that begins with its name."""


class Message:
    """The fields of a message.

    Args:
        what: names the message in errors.
        numbers: fields of whole numbers that it may have, and how many of each.
        texts: the same for fields of bytes.

    Raises:
        Refused: it has others, or more.
        ValueError: it is malformed.
    """

    def __init__(
        self,
        raw: bytes,
        what: str,
        *,
        numbers: Mapping[int, int] = _NONE,
        texts: Mapping[int, int] = _NONE,
    ) -> None:
        self._numbers: dict[int, list[int]] = {number: [] for number in numbers}
        self._texts: dict[int, list[bytes]] = {number: [] for number in texts}
        for number, wire, value in fields(raw):
            if wire == _VARINT and isinstance(value, int) and number in numbers:
                found, most = self._numbers[number], numbers[number]
                # As numbers of 64 bits are: with a sign.
                found.append(value - (1 << 64) if value >> 63 == 1 else value)
            elif wire == _BYTES and isinstance(value, bytes) and number in texts:
                self._texts[number].append(value)
                most = texts[number]
            else:
                raise Refused(f"holds what graphs of packs do not: field {number} of {what}")
            if len(self._numbers.get(number, self._texts.get(number, ()))) > most:
                raise Refused(f"holds too much: field {number} of {what} occurs too often")

    def numbers(self, number: int) -> list[int]:
        """All values of a field of whole numbers."""
        return self._numbers[number]

    def number(self, number: int) -> int:
        """The value of a field that occurs once, or 0."""
        return next(iter(self._numbers[number]), 0)

    def texts(self, number: int) -> list[bytes]:
        """All values of a field of bytes."""
        return self._texts[number]

    def text(self, number: int) -> bytes:
        """The value of a field of bytes that occurs once, or none."""
        return next(iter(self._texts[number]), b"")


def shown(name: bytes) -> str:
    """A name from a graph for people, however odd it is: short, and without control characters."""
    return ascii(name[:40].decode(errors="replace"))
