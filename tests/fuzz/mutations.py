"""Inputs made of other inputs: JSON by its members, messages of protocol buffers by their fields.

In: an input, words that sound ones hold, random numbers. Out: another input. What cannot be taken
apart is changed byte by byte. Knows no reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from sti.graphs.wire import bytes_of, encoded, fields
from tests.fuzz.target import Form

_NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 8, 255, 256, 2**16, 2**31, 2**31 - 1, 2**32, 2**53, 2**63 - 1, 2**63),
    *(2**64, 10**18, 10**30, 10**310, -(2**63), 0.5, -0.0, 1e-320, 1e-18, 1e308, 1e17, 1.5),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "a", "0", "\x1b[31m", "\ud800", "é" * 40, "a" * 5000, "../x", "/"),
    *([], {}, [[]], [0], [""], {"": 0}, float("inf"), float("nan")),
)
_DEEP = 2000


def mutated(data: bytes, form: Form, words: Sequence[str], rng: Random) -> bytes:
    """Another input, made of one by a few changes."""
    if form != "bytes" and rng.random() < 0.85:
        with suppress(ValueError, OverflowError, RecursionError):
            change = _json if form == "json" else _message
            for _ in range(1 + int(rng.expovariate(1.0))):
                data = change(data, words, rng)
            return data
    changed = bytearray(data)
    for _ in range(1 + int(rng.expovariate(0.7))):
        _change_bytes(changed, words, rng)
    return bytes(changed)


def _change_bytes(data: bytearray, words: Sequence[str], rng: Random) -> None:
    """Change a few bytes in place."""
    at = rng.randrange(len(data) + 1)
    size = min(len(data) - at, 1 + int(rng.expovariate(0.1)))
    kind = rng.randrange(7)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del data[at : at + size]
    elif kind == 3:
        data[at:at] = rng.randbytes(size or 1)
    elif kind == 4:
        start = rng.randrange(len(data) + 1)
        data[at:at] = data[start : start + size]
    elif kind == 5 and words:
        data[at:at] = rng.choice(words).encode("utf-8", "surrogatepass")
    else:
        width = rng.choice((1, 2, 4, 8))
        number = int(rng.choice(_NUMBERS[:22])) & ((1 << 8 * width) - 1)
        data[at : at + width] = number.to_bytes(width, "little")


def _json(data: bytes, words: Sequence[str], rng: Random) -> bytes:
    """Change one place of a JSON document.

    Raises:
        ValueError, RecursionError: it is none.
    """
    root = [json.loads(data)]
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item))
        for key in keys:
            places.append((item, key))
            if isinstance(item[key], dict | list):
                waiting.append(item[key])
    item, key = rng.choice(places[1:] or places)
    _change_member(item, key, places, words, rng)
    text = json.dumps(root[0], ensure_ascii=rng.random() < 0.5, separators=(",", ":"))
    if rng.random() < 0.03:
        text = _doubled(text, rng)
    return text.encode("utf-8", "surrogatepass")


def _change_member(
    item: Any, key: Any, places: Sequence[tuple[Any, Any]], words: Sequence[str], rng: Random
) -> None:
    value, kind = item[key], rng.randrange(10)
    if kind == 0 and len(places) > 1:
        del item[key]
    elif kind == 1:
        other, place = rng.choice(places)
        item[key] = _copy(other[place])
    elif kind == 2 and isinstance(value, list) and value:
        at = rng.randrange(len(value))
        value[at:at] = [_copy(rng.choice(value))] * rng.choice((1, 1, 2, 100))
    elif kind == 3 and isinstance(item, dict):
        item[rng.choice(words) if words else "a"] = item.pop(key)
    elif kind == 4 and isinstance(item, dict):
        item[rng.choice((*words, "more"))] = rng.choice(_VALUES)
    elif kind == 5 and words:
        item[key] = rng.choice(words)
    elif isinstance(value, int | float) and not isinstance(value, bool) and kind < 9:
        near = (value + 1, value - 1, -value, 2 * value, value / 2, value * 1000, str(value))
        item[key] = rng.choice(near if rng.random() < 0.5 else _NUMBERS)
    elif isinstance(value, str) and kind < 9:
        changed = bytearray(value.encode("utf-8", "surrogatepass"))
        _change_bytes(changed, words, rng)
        item[key] = changed.decode("utf-8", rng.choice(("replace", "ignore")))
    else:
        item[key] = rng.choice((*_NUMBERS, *_VALUES))


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _doubled(text: str, rng: Random) -> str:
    """What no object in memory can be: a member twice, deep nesting, long numbers."""
    makers: tuple[Callable[[], str], ...] = (
        lambda: text.replace("{", '{"a":0,"a":1,', 1),
        lambda: text[:-1] + ',"deep":' + "[" * _DEEP + "]" * _DEEP + text[-1:],
        lambda: text.replace("1", "1" * 5000, 1),
        lambda: text + text,
        lambda: text.replace(":", ":" + " " * 2000, 1),
    )
    return rng.choice(makers)()


def _message(data: bytes, words: Sequence[str], rng: Random) -> bytes:
    """Change one field of a message, or of one inside of it; lengths stay right.

    Raises:
        ValueError: it is none.
    """
    parts = [list(part) for part in fields(data)]
    if not parts:
        raise ValueError("an empty message")
    at = rng.randrange(len(parts))
    value = parts[at][2]
    if not isinstance(value, int) and rng.random() < 0.85:
        with suppress(ValueError):
            parts[at][2] = _message(bytes_of(value), words, rng)
            return encoded(tuple(part) for part in parts)  # type: ignore[misc]
    kind = rng.randrange(6)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts[at:at] = [list(rng.choice(parts))] * rng.choice((1, 1, 2, 40))
    elif kind == 2:
        rng.shuffle(parts)
    elif kind == 3:
        parts[at][0] = rng.choice((*range(1, 30), 2**20))
    elif isinstance(value, int):
        parts[at][2] = int(rng.choice((value + 1, value ^ 1, *_NUMBERS[:22]))) % 2**64
    else:
        changed = bytearray(bytes_of(value))
        if words and rng.random() < 0.4:
            changed[:] = rng.choice(words).encode()
        else:
            _change_bytes(changed, words, rng)
        parts[at][2] = bytes(changed)
    return encoded(tuple(part) for part in parts)  # type: ignore[misc]
