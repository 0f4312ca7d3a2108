"""Working buffers: one memory for all kinds of blocks; slices that are copied and cleared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sti.backend.working_buffer import (
    WorkingBuffer,
    clear_slice,
    copy_slice,
)
from sti.model.decoded_size import decoded_bytes, largest_group_bytes
from sti.model.manifest import BlockKind, Operand
from sti.pack.pack_reader import PackReader
from tests.support.packs import tiny_pack

OPERANDS = (Operand("a", (4, 2), "columns"), Operand("b", (3, 2, 4), "rows"))
OTHERS = (Operand("w", (2, 8, 8), "columns"),)
DTYPES = (np.dtype(np.int8), np.dtype(np.uint8))


def kind(name: str, operands: tuple[Operand, ...]) -> BlockKind:
    return BlockKind(name, "head", "tokens", operands, (), (), (), (3,))


FIRST, SECOND = kind("first", OPERANDS), kind("second", OTHERS)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    found: np.dtype[Any] = request.param
    return found


def filled(dtype: np.dtype[Any], first: int) -> WorkingBuffer:
    made = WorkingBuffer(decoded_bytes(FIRST, 3))
    for room in made.operands(FIRST, 3, dtype):
        room.matrix[:] = np.arange(room.matrix.size).reshape(room.matrix.shape) % 100 + first
    return made


def test_operands_are_matrices_of_the_slices_in_use(dtype: np.dtype[Any]) -> None:
    buffer = WorkingBuffer(decoded_bytes(FIRST, 3))
    for used in (1, 2, 3):
        a, b = buffer.operands(FIRST, used, dtype)
        assert (a.matrix.shape, a.slices, a.parts, a.columns) == ((4, 2 * used), used, 1, True)
        assert (b.matrix.shape, b.slices, b.parts, b.columns) == ((6 * used, 4), used, 3, False)
        assert not np.shares_memory(a.matrix, b.matrix)
        for room in (a, b):
            assert room.matrix.dtype == dtype
            assert room.matrix.flags.c_contiguous and room.matrix.ctypes.data % 64 == 0


def test_operands_are_the_same_every_time(dtype: np.dtype[Any]) -> None:
    buffer = WorkingBuffer(decoded_bytes(FIRST, 3))
    found = buffer.operands(FIRST, 2, dtype)
    buffer.operands(FIRST, 3, dtype)
    assert buffer.operands(FIRST, 2, dtype) is found


def test_kinds_share_the_memory(dtype: np.dtype[Any]) -> None:
    buffer = WorkingBuffer(max(decoded_bytes(FIRST, 3), decoded_bytes(SECOND, 2)))
    a, _ = buffer.operands(FIRST, 3, dtype)
    (w,) = buffer.operands(SECOND, 2, dtype)
    w.matrix[:] = 7
    assert (a.matrix == 7).all()


def test_one_slice_is_copied_and_no_other(dtype: np.dtype[Any]) -> None:
    source = filled(dtype, 1).operands(FIRST, 3, dtype)
    target = WorkingBuffer(decoded_bytes(FIRST, 3)).operands(FIRST, 3, dtype)
    copy_slice(target, source, 1)
    for mine, theirs in zip(target, source, strict=True):
        np.testing.assert_array_equal(mine.of(1), theirs.of(1))
        assert not mine.of(0).any() and not mine.of(2).any() and mine.of(1).all()


def test_a_slice_is_copied_to_where_fewer_are_in_use(dtype: np.dtype[Any]) -> None:
    source = filled(dtype, 1).operands(FIRST, 3, dtype)
    target = WorkingBuffer(decoded_bytes(FIRST, 3)).operands(FIRST, 2, dtype)
    copy_slice(target, source, 1)
    for mine, theirs in zip(target, source, strict=True):
        np.testing.assert_array_equal(mine.of(1), theirs.of(1))


def test_a_cleared_slice_is_zero_as_its_type_writes_it(dtype: np.dtype[Any]) -> None:
    rooms = filled(dtype, 1).operands(FIRST, 3, dtype)
    before = [room.matrix.copy() for room in rooms]
    clear_slice(rooms, 2)
    zero = 128 if dtype == np.uint8 else 0
    for room, kept in zip(rooms, before, strict=True):
        was = room._replace(matrix=kept)
        assert (room.of(2) == zero).all()
        for number in (0, 1):
            np.testing.assert_array_equal(room.of(number), was.of(number))


def test_the_largest_group_of_a_pack_fits() -> None:
    with PackReader.open(tiny_pack()) as reader:
        manifest = reader.manifest
    buffer = WorkingBuffer(largest_group_bytes(manifest))
    for found in manifest.kinds:
        rooms = buffer.operands(found, max(found.groups), np.dtype(np.int8))
        weights = sum(room.matrix.size for room in rooms)
        assert weights == max(found.groups) * found.shard_weights
        assert [room.columns for room in rooms] == [
            operand.joined == "columns" for operand in found.operands
        ]
