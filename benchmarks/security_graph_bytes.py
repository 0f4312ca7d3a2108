"""Hostile graphs whose bytes are malformed.

In: a serialized graph, a source of random numbers. Out: a hostile one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from benchmarks.security_graph_changes import Harm


def _truncated(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def _garbage(raw: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, len(raw)))
    found = bytearray(raw)
    if kind == 1:  # a stretch of it
        start = rng.randrange(len(raw))
        stretch = rng.randbytes(min(rng.randrange(16, 256), len(raw) - start))
        found[start : start + len(stretch)] = stretch
        return bytes(found)
    return bytes(found) + rng.randbytes(rng.randrange(4, 64))


def _long_fields(raw: bytes, rng: random.Random) -> bytes:
    """Lengths that lead far beyond the end, and numbers that do not end."""
    place = rng.randrange(len(raw))
    return raw[:place] + b"\xff" * rng.choice((9, 10, 1000)) + b"\x7f" + raw[place:]


def _many_fields(raw: bytes, rng: random.Random) -> bytes:
    """A few bytes for each of very many fields."""
    return raw + rng.choice((b"\x08\x08", b"\x42\x00", b"\x72\x00", b"\x3a\x00")) * 500_000


BYTES: Mapping[str, Harm] = {
    "truncated bytes": _truncated,
    "garbage bytes": _garbage,
    "long fields": _long_fields,
    "many fields": _many_fields,
}
"""By kind."""
