"""Working buffers: slices that are copied and cleared."""

from __future__ import annotations

import numpy as np
import pytest

from sti.backend.working_buffer import WorkingBuffer, make_buffers
from sti.model.fidelity import WORKING_BUFFERS
from sti.pack.pack_reader import PackReader
from tests.support.packs import tiny_pack

SHAPES = ((4, 2), (2, 4), (3,))


@pytest.fixture(params=[np.int8, np.uint8])
def buffer(request: pytest.FixtureRequest) -> WorkingBuffer:
    made = WorkingBuffer(SHAPES, 3, request.param)
    for number, operand in enumerate(made.operands):
        operand[:] = np.arange(operand.size).reshape(operand.shape) + 50 * number + 1
    return made


def test_another_buffer_is_for_the_same_operands_with_memory_of_its_own(
    buffer: WorkingBuffer,
) -> None:
    other = buffer.another()
    assert [operand.shape for operand in other.operands] == [(3, *shape) for shape in SHAPES]
    assert other.operands[0].dtype == buffer.operands[0].dtype
    for mine, theirs in zip(other.operands, buffer.operands, strict=True):
        assert not np.shares_memory(mine, theirs)


def test_one_slice_is_copied_and_no_other(buffer: WorkingBuffer) -> None:
    other = buffer.another()
    other.copy_slice(1, buffer)
    for mine, theirs in zip(other.operands, buffer.operands, strict=True):
        np.testing.assert_array_equal(mine[1], theirs[1])
        assert not mine[[0, 2]].any()


def test_a_cleared_slice_is_zero_as_its_type_writes_it(buffer: WorkingBuffer) -> None:
    before = [operand.copy() for operand in buffer.operands]
    buffer.clear_slice(2)
    zero = 128 if buffer.operands[0].dtype == np.uint8 else 0
    for operand, kept in zip(buffer.operands, before, strict=True):
        assert (operand[2] == zero).all()
        np.testing.assert_array_equal(operand[:2], kept[:2])


def test_a_pack_has_as_many_buffers_of_each_kind_as_running_it_takes() -> None:
    with PackReader.open(tiny_pack()) as reader:
        manifest = reader.manifest
    buffers = make_buffers(manifest, np.int8)
    for kind in manifest.kinds:
        assert len(buffers[kind.name]) == WORKING_BUFFERS
        for found in buffers[kind.name]:
            shapes = [operand.shape[1:] for operand in found.operands]
            assert shapes == [operand.shape for operand in kind.operands]
            assert {len(operand) for operand in found.operands} == {max(kind.groups)}
