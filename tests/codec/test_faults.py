"""Damaged groups: every path finds the same first fault, and writes nothing outside its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.quantization.encode import EncodedShard, Encoder
from sti.codec.decoders import make_decoder
from sti.codec.outliers import SEGMENT_WEIGHTS
from sti.codec.pieces import SHARD, Fault
from sti.errors import PackFormatError
from tests.support.codes import CUT, bell, bell_codebook
from tests.support.groups import (
    GUARD,
    Layout,
    StoredGroup,
    guarded,
    rooms_for,
    stored_group,
    untouched,
)

SIZES = (1024 + 64, 72)
BOOK = bell_codebook()
ROWS = 3


def encoded(sizes: Sequence[int] = SIZES, *, seed: int = 0) -> EncodedShard:
    return Encoder(BOOK, cut=CUT).encode(bell(sum(sizes), seed=seed), sizes)


def sound(planes: int = 5) -> StoredGroup:
    return stored_group([encoded(seed=row) for row in range(ROWS)], [planes] * ROWS)


def fault(
    path: str, group: StoredGroup, sizes: Sequence[int] = SIZES, *, check: bool = True
) -> Fault | None:
    """What decoding finds; checks that only the group's slices were written."""
    count = len(group.shards)
    layouts = [Layout(1, 4 if size % 4 == 0 else 1, columns=True) for size in sizes]
    memory, operands = guarded(sizes, count, np.uint8, shift=1, layouts=layouts)
    decoder = make_decoder(BOOK, weights="u8", path=path)
    found = decoder.decode(*group, operands, check=check)
    for room in operands:
        room.matrix[:] = GUARD
    assert untouched(memory)
    return found


def with_list(stored: bytes, sizes: Sequence[int]) -> StoredGroup:
    """A group of one shard with this outlier list."""
    listed = np.frombuffer(stored, dtype=np.uint8)
    weights = np.zeros(sum(sizes), dtype=np.int8)
    planes = Encoder(BOOK, cut=CUT).encode(weights, sizes).planes
    return stored_group([EncodedShard(planes, listed)], [2])


def outlier_list(counts: Sequence[int], positions: Sequence[int], *, values: int = -1) -> bytes:
    """A list of these counts and positions, and of as many values unless told otherwise."""
    number = len(positions) if values < 0 else values
    found = np.array(counts, "<u4").tobytes() + np.array(positions, "<u2").tobytes()
    found += b"\x7f" * number
    return found + bytes(-len(found) % 4)


@settings(max_examples=40)
@given(at=st.integers(0, 2**31), bit=st.integers(0, 7), planes=st.integers(1, 5))
def test_any_flipped_bit_is_found_in_its_piece(path: str, at: int, bit: int, planes: int) -> None:
    group = sound(planes)
    data = group.data.copy()
    at %= data.size
    data[at] ^= 1 << bit
    hit = [
        Fault(row, piece, "checksum")
        for row in range(ROWS)
        for piece in range(planes + 1)
        for part, length, start, _, _ in [group.shards["pieces"][row, piece]]
        if 0 <= at - int(group.starts[part] + start) < length
    ]
    found = fault(path, StoredGroup(data, group.starts, group.shards))
    assert found == (hit[0] if hit else None)


def test_damaged_planes_decode_where_checks_are_declined(path: str) -> None:
    group = sound()
    group.shards["pieces"]["checksum"][:, 1:] ^= 1
    assert fault(path, group) == Fault(0, 1, "checksum")
    assert fault(path, group, check=False) is None


def test_the_first_fault_is_of_the_first_shard_and_its_lowest_piece(path: str) -> None:
    group = sound()
    for row, piece in ((2, 0), (1, 4), (1, 3)):
        group.shards["pieces"]["checksum"][row, piece] ^= 1
    assert fault(path, group) == Fault(1, 3, "checksum")
    group.shards["pieces"]["length"][1, 2] += 1
    assert fault(path, group) == Fault(1, 2, "size")
    group.shards["pieces"]["part"][1, 1] = 77
    assert fault(path, group) == Fault(1, 1, "bounds")
    group.shards["pieces"]["length"][0, 0] -= 4
    group.shards["pieces"]["checksum"][0, 0] = crc32(
        group.data[: group.shards["pieces"]["length"][0, 0]]
    )
    assert fault(path, group) == Fault(0, 0, "outliers")


def test_slices_before_a_fault_are_written(path: str) -> None:
    group = sound()
    group.shards["row"] = [2, 0, 1]
    group.shards["pieces"]["checksum"][1, 5] ^= 1
    operands = rooms_for(SIZES, ROWS, np.int8)
    decoder = make_decoder(BOOK, weights="s8", path=path)
    found = decoder.decode(*group, operands)
    assert found == Fault(0, 5, "checksum")
    written = np.concatenate([room.matrix[2] for room in operands])
    np.testing.assert_array_equal(written, bell(sum(SIZES), seed=0))


@pytest.mark.parametrize("piece", range(6))
@pytest.mark.parametrize(
    "change",
    [
        {"part": 6},
        {"part": 2**32 - 1},
        {"start": 2**63},
        {"start": 2**64 - 1},
        {"length": 2**32 - 1},
    ],
    ids=str,
)
def test_pieces_outside_the_buffer_are_not_read(
    path: str, piece: int, change: dict[str, int]
) -> None:
    group = sound()
    for name, value in change.items():
        group.shards["pieces"][name][1, piece] = value
    for check in (True, False):
        assert fault(path, group, check=check) == Fault(1, piece, "bounds")


def test_a_buffer_that_is_cut_short_is_not_read_beyond_its_end(path: str) -> None:
    group = sound()
    short = StoredGroup(group.data[:-1].copy(), group.starts, group.shards)
    assert fault(path, short, check=False) == Fault(2, 5, "bounds")
    far = StoredGroup(group.data, group.starts + np.uint64(2**64 - 2), group.shards)
    assert fault(path, far, check=False) == Fault(0, 0, "bounds")


@pytest.mark.parametrize("piece", range(1, 6))
@pytest.mark.parametrize("change", [np.subtract, np.add])
def test_a_plane_of_another_size_is_found(path: str, piece: int, change: Any) -> None:
    group = sound()
    lengths = group.shards["pieces"]["length"]
    lengths[1, piece] = change(lengths[1, piece], 1)
    group = StoredGroup(np.append(group.data, np.uint8(0)), group.starts, group.shards)
    for check in (True, False):
        assert fault(path, group, check=check) == Fault(1, piece, "size")


TWO_SEGMENTS = (SEGMENT_WEIGHTS + 64, 72)
"""Three segments: 65,536, 64 and 72 weights."""

SOUND_LISTS = {
    "none": outlier_list([0, 0, 0], []),
    "at the ends": outlier_list([2, 2, 2], [0, 65535, 0, 63, 0, 71]),
    "positions fall between segments": outlier_list([1, 0, 1], [65535, 3]),
    "as high as the segment before": outlier_list([0, 1, 1], [5, 5]),
}

BROKEN_LISTS = {
    "empty": b"",
    "no room for counts": bytes(8),
    "a byte short of counts": bytes(11),
    "no entries": outlier_list([1, 0, 0], []),
    "too many by far": outlier_list([2**31, 2**31, 0], []),
    "counts that overflow together": outlier_list([2**32 - 1, 2, 0], [1]),
    "a value short": outlier_list([0, 0, 4], [1, 2, 3, 4], values=0),
    "an entry too many": outlier_list([0, 0, 3], [1, 2, 3, 4]),
    "four bytes too long": outlier_list([0, 0, 4], [1, 2, 3, 4]) + bytes(4),
    "not padded": outlier_list([0, 0, 1], [1])[:-1],
    "padded with something": outlier_list([0, 0, 1], [1])[:-1] + b"\x01",
    "twice": outlier_list([0, 0, 2], [7, 7]),
    "falling": outlier_list([0, 0, 2], [8, 7]),
    "falling in the first": outlier_list([2, 0, 1], [8, 7, 9]),
    "beyond the second segment": outlier_list([0, 1, 0], [64]),
    "beyond the last": outlier_list([0, 0, 1], [72]),
    "far beyond": outlier_list([0, 0, 2], [3, 65535]),
    "beyond before others": outlier_list([0, 2, 1], [1, 64, 70]),
}


@pytest.mark.parametrize("name", SOUND_LISTS)
def test_lists_in_order_are_taken(path: str, name: str) -> None:
    assert fault(path, with_list(SOUND_LISTS[name], TWO_SEGMENTS), TWO_SEGMENTS) is None


@pytest.mark.parametrize("name", BROKEN_LISTS)
def test_lists_that_contradict_themselves_are_found(path: str, name: str) -> None:
    group = with_list(BROKEN_LISTS[name], TWO_SEGMENTS)
    for check in (True, False):
        assert fault(path, group, TWO_SEGMENTS, check=check) == Fault(0, 0, "outliers")


@settings(max_examples=60)
@given(listed=st.binary(max_size=64), small=st.booleans())
def test_no_list_writes_outside_the_slices(path: str, listed: bytes, small: bool) -> None:
    if small:  # so that some get beyond the counts
        listed = bytes(byte if place % 4 == 0 else 0 for place, byte in enumerate(listed[:12]))
        listed += bytes(20)
    fault(path, with_list(listed, SIZES), SIZES, check=False)


@settings(max_examples=60)
@given(data=st.data())
def test_no_piece_of_a_shard_reads_or_writes_elsewhere(path: str, data: Any) -> None:
    group = sound()
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(["part", "length", "start", "checksum"]))
        bits = 64 if name == "start" else 32
        place = data.draw(st.tuples(st.integers(0, ROWS - 1), st.integers(0, 5)))
        value = st.one_of(st.integers(0, 2**bits - 1), st.integers(0, 4000))
        group.shards["pieces"][name][place] = data.draw(value)
    fault(path, group, check=False)


# What no bytes can mend


@pytest.mark.parametrize("planes", [0, 6, 8, 2**32 - 1])
def test_planes_without_a_fidelity_are_refused(path: str, planes: int) -> None:
    group = sound()
    group.shards["planes"][1] = planes
    with pytest.raises(PackFormatError, match="1 to 5 planes"):
        fault(path, group)


def test_slices_beyond_the_operands_are_refused(path: str) -> None:
    group = sound()
    group.shards["row"][2] = ROWS
    with pytest.raises(PackFormatError, match="beyond the 3 slices"):
        fault(path, group)


@pytest.mark.parametrize("sizes", [(), (0, 8), (12, 8), (1001,)])
def test_operands_of_other_sizes_are_refused(path: str, sizes: tuple[int, ...]) -> None:
    with pytest.raises(PackFormatError, match="multiples of 8"):
        fault(path, sound(), sizes)


def test_arrays_of_other_types_are_refused(path: str) -> None:
    group = sound()
    decoder = make_decoder(BOOK, weights="s8", path=path)
    transposed = [
        room._replace(matrix=room.matrix.T.copy().T) for room in rooms_for(SIZES, ROWS, np.int8)
    ]
    for operands in (rooms_for(SIZES, ROWS, np.uint8), transposed):
        with pytest.raises(PackFormatError, match="contiguous and int8"):
            decoder.decode(*group, operands)
    operands = rooms_for(SIZES, ROWS, np.int8)
    for shards in (group.shards[::2], np.zeros(ROWS, np.int64), np.zeros((1, 1), SHARD)):
        with pytest.raises(PackFormatError, match="shards to decode"):
            decoder.decode(group.data, group.starts, shards, operands)


def test_bytes_and_starts_of_other_types_are_refused(path: str) -> None:
    group, decoder = sound(), make_decoder(BOOK, weights="s8", path=path)
    operands = rooms_for(SIZES, ROWS, np.int8)
    for data in (group.data.view(np.int8), group.data[None], group.data[::2]):
        with pytest.raises(PackFormatError, match="bytes to decode"):
            decoder.decode(data, group.starts, group.shards, operands)
    for starts in (group.starts.astype(np.int64), group.starts[None], group.starts[::2]):
        with pytest.raises(PackFormatError, match="starts of parts"):
            decoder.decode(group.data, starts, group.shards, operands)
