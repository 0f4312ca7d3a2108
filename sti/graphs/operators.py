"""The operators that graphs of packs may have: those that writers use, in the ways they use them.

Out: ``OPERATORS``, from the table that ``tests/tools/graph_operators.py`` generates from what
writers write. Anything else is refused. Knows nothing of what operators compute.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sti.graphs.operator_table import TABLE
from sti.graphs.wire import integer, real, text

SHARE = "0 to 1"
"""What the table says of an attribute that is any number between these."""

Attribute = float | tuple[int, ...]
"""Values of attributes: whole numbers too."""

_NAME, _FLOAT, _INT, _INTS, _TYPE = 1, 2, 3, 8, 20
_OF_FLOAT, _OF_INT, _OF_INTS = 1, 2, 7


class Operator(NamedTuple):
    """An operator, and how it may be used."""

    domain: str
    name: str
    results: Mapping[tuple[str, ...], str]
    """For the element types of inputs, that of the output."""
    attributes: Mapping[bytes, tuple[str, Attribute]]
    """Attributes of whole numbers with the values they may have, by their bytes."""
    shares: frozenset[str]
    """Attributes that are numbers from 0 to 1."""
    required: frozenset[str]
    """Attributes that have no default value."""

    def attribute(self, raw: bytes) -> tuple[str, Attribute] | None:
        """The name and the value of a serialized attribute; None if it may not have it."""
        return self.attributes.get(raw) or next(
            ((name, share) for name in self.shares if (share := _share(name, raw)) is not None),
            None,
        )


def _operators() -> Iterator[Operator]:
    for entry in filter(None, TABLE.strip().split("\n\n")):
        head, *lines = entry.split("\n")
        domain, _, name = head.rpartition(" ")
        results: dict[tuple[str, ...], str] = {}
        attributes: dict[bytes, tuple[str, Attribute]] = {}
        shares, required = set(), set()
        for line in lines:
            given, arrow, made = line.partition(" -> ")
            if arrow:
                results[tuple(given.split())] = made
                continue
            key, sign, values = line.split(maxsplit=2)
            if sign == "=":
                required.add(key)
            if values == SHARE:
                shares.add(key)
            else:
                attributes |= dict(_known(key, value) for value in values.split(" or "))
        yield Operator(domain, name, results, attributes, frozenset(shares), frozenset(required))


def _known(name: str, value: str) -> tuple[bytes, tuple[str, Attribute]]:
    """The bytes of an attribute with a value of the table."""
    found = [int(number) for number in value.strip("[]").split()]
    several = value.startswith("[")
    numbers = b"".join(integer(_INTS if several else _INT, number) for number in found)
    raw = text(_NAME, name) + numbers + integer(_TYPE, _OF_INTS if several else _OF_INT)
    return raw, (name, tuple(found) if several else found[0])


def _share(name: str, raw: bytes) -> float | None:
    """The number from 0 to 1 that a serialized attribute is; None if it is another one."""
    head, tail = text(_NAME, name), integer(_TYPE, _OF_FLOAT)
    if len(raw) != len(head) + len(real(_FLOAT, 0.0)) + len(tail):
        return None
    value: float = struct.unpack("<f", raw[len(head) + 1 : -len(tail)])[0]
    fits = raw == head + real(_FLOAT, value) + tail and 0.0 <= value <= 1.0
    return value if fits else None


OPERATORS = {(item.domain.encode(), item.name.encode()): item for item in _operators()}
"""By domain and name, as they are in graphs."""
