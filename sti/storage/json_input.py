"""The one reader of JSON that came from outside: what is no plain document is refused, unparsed.

In: bytes or text, and what a document of its kind may hold. Out: the parsed value. A few bytes of
JSON can take a hundred bytes of memory, or nest deeper than a stack is, so bytes, values and depth
are counted before anything is made of them. Knows nothing of files, or of what fields mean
(``sti.json_fields``). Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NamedTuple, NoReturn

MOST_DIGITS = 64
"""Of one number, all its parts together: floats are written with at most 24."""

_ABSURD = b"0" * (MOST_DIGITS + 1)
_SHAPE = bytes.maketrans(b"{}123456789", b"[]000000000")
"""What a document's shape is made of: brackets of one kind, commas, digits, quotes."""
_KEPT = b'[]{}",0123456789'
_REST = bytes(code for code in range(256) if code not in _KEPT)
_REST_BUT_ESCAPES = _REST.replace(b"\\", b"")
_EXPONENT = bytes.maketrans(b"E+123456789", b"e0000000000")
_ESCAPE = re.compile(rb'\\[^"\\]')


class JsonLimits(NamedTuple):
    """What a document of some kind may hold."""

    most_bytes: int
    most_values: int
    """Commas and opening brackets: as many as values, or up to twice as many."""
    most_depth: int
    """Objects and lists inside one another."""


SMALL = JsonLimits(1 << 18, 1 << 13, 8)
"""Documents of some hundred fields, 30 times over: device profiles, records, thread counts."""
LARGE = JsonLimits(1 << 26, 1 << 21, 32)
"""Whatever has to be read whole: traces of many runs, answers of processes."""


def parse_json(given: bytes | str, limits: JsonLimits) -> Any:
    """Parse one document.

    Takes at most some 9 times its bytes of memory, and 150 bytes for each of ``most_values``.

    Raises:
        ValueError: it is larger than the limits, or is no JSON in UTF-8; it has a number of absurd
            length, one that is not finite, a name twice in one object, or half a character.
    """
    try:
        raw = given.encode("utf-8") if isinstance(given, str) else given
    except UnicodeEncodeError as error:
        raise ValueError(f"it is not valid Unicode text: {error.reason}") from error
    if len(raw) > limits.most_bytes:
        raise ValueError(f"{len(raw)} bytes are more than the {limits.most_bytes} it may have")
    raw = raw.rstrip(b" \t\r\n")  # headers are padded
    escapes = b"\\" in raw and _ESCAPE.search(raw) is not None
    _check_shape(raw, limits, escapes=escapes)
    try:
        text = given if isinstance(given, str) else raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in UTF-8 (byte {error.start + 1})") from error
    try:
        found = json.loads(
            text,
            object_pairs_hook=_distinct,
            parse_constant=_refuse,
            parse_float=_finite if _may_be_huge(raw) else None,
        )
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if escapes and (b"\\ud" in raw or b"\\uD" in raw):  # it may lack its other half
        try:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"it is not valid Unicode text: {error.reason}") from error
    return found


def _check_shape(raw: bytes, limits: JsonLimits, *, escapes: bool) -> None:
    """Refuse what has too many values or is too deep, whether it is valid or not.

    Args:
        escapes: whether a backslash may stand before something else than itself or a quote.
    """
    if b"\\" not in raw:
        shape = raw.translate(_SHAPE, _REST)
    elif escapes:
        shape = _without_escapes(raw).translate(_SHAPE, _REST)
    else:  # every backslash is kept, and so is what it stands before
        shape = _without_escapes(raw.translate(_SHAPE, _REST_BUT_ESCAPES))
    # Each value and each name is one string at most; what is between two quotes is one.
    too_many = shape.count(b'"') > 4 * limits.most_values + 4
    if not too_many:
        absurd = _ABSURD in shape  # in a string, perhaps
        if not absurd:
            # Most strings are empty then; without them it is as certain what is in one and what
            # is not, and no piece is made of each.
            shape = shape.translate(None, b"0").replace(b'""', b"")
        shape = b"".join(shape.split(b'"')[::2])
        too_many = shape.count(b",") + shape.count(b"[") > limits.most_values
    if too_many:
        raise ValueError(f"it holds more than the {limits.most_values} values it may have")
    if absurd and _ABSURD in shape:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    shape = shape.translate(None, b",0")
    for _ in range(limits.most_depth):
        shape = shape.replace(b"[]", b"")  # the innermost level
    opened, closed = shape.count(b"["), shape.count(b"]")
    # What was cut off is not deep for that: the parser says where it ends.
    if opened > (0 if opened == closed else limits.most_depth):
        raise ValueError(f"it nests deeper than the {limits.most_depth} levels it may have")


def _may_be_huge(raw: bytes) -> bool:
    """Whether there is a number that floats may not reach: with so few digits, only an exponent of
    three can be too large. Most documents have none but in names such as digests.
    """
    shape = raw.translate(_EXPONENT)
    at = shape.find(b"e000")
    while at >= 0:
        before = shape[max(0, at - MOST_DIGITS - 2) : at].rstrip(b"0.-")[-1:]
        if before in b",:[ \t\r\n":
            return True
        at = shape.find(b"e000", at + 1)
    return False


def _without_escapes(raw: bytes) -> bytes:
    """Without backslashes and quotes that a backslash stands before: what is left ends strings."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r:.60} occurs twice in one object")
    return found


def _finite(number: str) -> float:
    found = float(number)
    return found if math.isfinite(found) else _refuse(number)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no finite number")
