"""Rows of the embedding table: what they decode to, and rows that are not what they should be."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.quantization.embedding_table import encode_rows, group_size
from sti.arrays import ByteArray, Float32Array
from sti.codec.word_rows import decode_rows, portable_rows, row_bytes

DECODERS = (portable_rows, decode_rows)


def _as_written_down(raw: ByteArray, group: int, out: Float32Array) -> None:
    """Check decoded rows against their bytes, one by one."""
    half, end = out.shape[1] // 2, raw.shape[1] - 4
    for row, data in enumerate(raw):
        scales = np.frombuffer(data[half:end].tobytes(), "<f2").astype(np.float32)
        codes = [int(byte) & 15 for byte in data[:half]] + [int(byte) >> 4 for byte in data[:half]]
        expected = [(code - 8) * scales[at // group] for at, code in enumerate(codes)]
        np.testing.assert_array_equal(out[row], np.array(expected, dtype=np.float32))


@settings(max_examples=60)
@given(
    rows=st.integers(1, 5),
    hidden=st.sampled_from([2, 6, 32, 48, 96]),
    first=st.integers(0, 2**32 - 5),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e4]),
)
def test_token_rows_decode_to_what_their_bytes_say_and_near_the_original(
    rows: int, hidden: int, first: int, seed: int, scale: float
) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, hidden), dtype=np.float32)
    values *= np.float32(scale)
    group = group_size(hidden)
    raw = encode_rows(values, group=group, first=first)
    assert raw.shape == (rows, row_bytes(hidden, group))
    out = np.empty((rows, hidden), dtype=np.float32)
    ids = np.arange(first, first + rows)
    for decode in DECODERS:
        out[:] = np.nan
        assert decode(raw, ids, group, out) is None
        _as_written_down(raw, group, out)
    # A step is at most 1/7 of a group's range, and half precision fails below 6e-8.
    reach = np.abs(values.reshape(rows, -1, group)).max(axis=2).repeat(group, axis=1)
    assert (np.abs(out - values) <= reach * 0.2 + 1e-6).all()


def test_word_scales_lower_the_error_of_plain_rounding() -> None:
    values = np.random.default_rng(5).standard_normal((200, 96), dtype=np.float32)
    out = np.empty_like(values)
    raw = encode_rows(values, group=32, first=0)
    assert decode_rows(raw, np.arange(200), 32, out) is None
    groups = values.reshape(-1, 32)
    step = np.abs(groups).max(axis=1, keepdims=True) / 7
    plain = np.clip(np.rint(groups / step), -8, 7) * step
    assert np.square(out - values).sum() < 0.8 * np.square(plain - groups).sum()


def _rows(count: int, *, first: int = 0) -> ByteArray:
    values = np.random.default_rng(1).standard_normal((count, 64), dtype=np.float32)
    return encode_rows(values, group=32, first=first)


def test_a_row_ends_in_the_checksum_of_its_number_and_its_bytes() -> None:
    raw = _rows(3, first=70_000)
    for place, row in enumerate(raw):
        number = (70_000 + place).to_bytes(4, "little")
        assert int.from_bytes(row[-4:].tobytes(), "little") == zlib.crc32(
            number + row[:-4].tobytes()
        )


@pytest.mark.parametrize("decode", DECODERS)
@settings(max_examples=30)
@given(place=st.integers(0, 99), at=st.integers(0, 39), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_row_is_found(decode: object, place: int, at: int, bit: int) -> None:
    assert callable(decode)
    raw, out = _rows(100), np.empty((100, 64), dtype=np.float32)
    raw[place, at] ^= 1 << bit
    raw[99, 0] ^= 1 << (7 if (place, at, bit) != (99, 0, 7) else 6)  # the first one is named
    assert decode(raw, np.arange(100), 32, out) == place
    assert decode(raw, np.arange(100), 32, out, check=False) is None


@pytest.mark.parametrize("decode", DECODERS)
def test_a_row_in_the_place_of_another_is_found(decode: object) -> None:
    assert callable(decode)
    raw, out = _rows(100), np.empty((4, 64), dtype=np.float32)
    ids = np.array([2, 5, 50, 99])
    assert decode(raw[ids], ids, 32, out) is None
    assert decode(raw[np.array([2, 5, 51, 98])], ids, 32, out) == 2
    assert decode(raw[:0], ids[:0], 32, out[:0]) is None
