"""JSON from outside: what is parsed, and what is refused before it costs anything."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.storage.json_input import MOST_DIGITS, JsonLimits, parse_json

LIMITS = JsonLimits(1 << 16, 1000, 6)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
finite = scalars.filter(lambda value: value not in (float("inf"), -float("inf")))
documents = st.recursive(
    finite,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def count(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + sum(map(count, inner)) if isinstance(inner, list) else 1


@settings(max_examples=60)
@given(documents, st.booleans(), st.booleans())
def test_what_is_within_the_limits_reads_as_the_standard_library_reads_it(
    value: Any, is_ascii: bool, as_text: bool
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    limits = JsonLimits(len(text.encode()), 2 * count(value), depth(value))
    assert parse_json(text if as_text else text.encode(), limits) == value


@settings(max_examples=60)
@given(documents.filter(depth), st.text())
def test_depth_is_counted_exactly_whatever_strings_hold(value: Any, key: str) -> None:
    text = json.dumps({key: value, key + '[\\"]}': '{"'})
    with pytest.raises(ValueError, match="nests deeper"):
        parse_json(text, JsonLimits(1 << 20, 10_000, depth(value)))
    parse_json(text, JsonLimits(1 << 20, 10_000, depth(value) + 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 7 + b"]" * 7, "nests deeper than the 6 levels"),
        (b"[" * 500, "nests deeper"),
        (b'["]",' * 400 + b"0" + b"]" * 400, "nests deeper"),
        (b"[" + b"0," * 1000 + b"0]", "more than the 1000 values"),
        (b"[" + b"[]," * 600 + b"0]", "more than the 1000 values"),
        (b'"' * 5000, "more than the 1000 values"),
        (b" " * (1 << 16) + b"0", "65537 bytes are more"),
        (b"1" * (MOST_DIGITS + 1), "more than 64 digits"),
        (b"-0." + b"1" * 300 + b"e-5", "more than 64 digits"),
        (b'{"a": 1, "b": {"a": 1, "\\u0061": 2}}', "the name 'a' occurs twice"),
        (b"[NaN]", "NaN is no finite number"),
        (b"-Infinity", "-Infinity is no finite number"),
        (b'{"a":9.5e308}', "9.5e308 is no finite number"),
        (b'["3e123", ' + b"9" * 59 + b"e" + b"251]", "e251 is no finite number"),
        (b"[1e99999]", "1e99999 is no finite number"),
        (b"-1.5E+0400", "-1.5E\\+0400 is no finite number"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'{"\\uDFFF": 0}', "surrogates not allowed"),
        (b'"\xff"', "not text in UTF-8"),
        ('"ä"'.encode("utf-16"), "not text in UTF-8"),
        (b"\xef\xbb\xbf0", "BOM"),
        (b'{"a": [1, 2', "delimiter: line 1 column 12"),
        (b"", "Expecting value"),
        (b"[0,]", "Expecting value"),
    ],
)
def test_what_is_no_plain_document_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text, LIMITS)


def test_text_with_half_a_character_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        parse_json('"\ud800"', LIMITS)


@pytest.mark.parametrize("inner", [b"[],", b"{},", b'"a",', b'[{"a":1}],', b"1.5,", b'"",'])
def test_refusing_a_document_takes_little_more_memory_than_it_has(inner: bytes) -> None:
    text = b"[" + inner * (1 << 17) + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="values"):
            parse_json(text, JsonLimits(1 << 24, 1 << 12, 8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(text) + (1 << 20)


@pytest.mark.parametrize("inner", [b"[],", b"{},", b'"ab",', b'{"ab":1},', b"1.5,", b"123456789,"])
def test_a_value_takes_a_bounded_amount_of_memory(inner: bytes) -> None:
    text = b"[" + inner * (1 << 13) + b"0]"
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    tracemalloc.start()
    try:
        parse_json(text, JsonLimits(len(text), values, 8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 9 * len(text) + 150 * values


def test_refusing_a_vocabulary_takes_little_more_memory_than_it_has() -> None:
    text = b"{" + b",".join(b'"%d":%d' % (number, number) for number in range(1 << 17)) + b"}"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="values"):
            parse_json(text, JsonLimits(1 << 24, 1 << 16, 8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(text)


def test_long_numbers_in_strings_are_no_numbers() -> None:
    assert parse_json(b'["' + b"1" * 99 + b'", 1]', LIMITS) == ["1" * 99, 1]
    with pytest.raises(ValueError, match="more than 64 digits"):
        parse_json(b'["' + b"1" * 99 + b'", ' + b"1" * 65 + b"]", LIMITS)
