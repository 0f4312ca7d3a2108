"""The native kernel equals the NumPy specification to the bit, on every path that runs here.

It is compiled from the sources at hand into a folder of its own, so that no stale library is
tested; without a C compiler there is nothing to test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import c_char_p
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.decoder import NumpyDecoder
from sti.codec.native import library
from sti.codec.native.kernel import NativeDecoder, available_paths, native_rows
from sti.codec.outliers import SEGMENT_WEIGHTS
from sti.codec.pieces import Fault, OperandRoom
from sti.codec.weights import WeightForm
from sti.codec.word_rows import portable_rows, row_bytes, row_checksum
from sti.errors import PackFormatError
from tests.support.codes import bell_codebook, ladders, wild_codebook
from tests.support.groups import (
    AROUND,
    GUARD,
    Layout,
    RandomGroup,
    StoredGroup,
    guarded,
    random_group,
    random_layouts,
    rooms_for,
)

ROWS = 3


pytestmark = pytest.mark.usefixtures("compiled_kernel")


def run(
    decoder: Any,
    group: RandomGroup,
    stored: StoredGroup,
    *,
    layouts: Sequence[Layout] | None = None,
    check: bool = True,
) -> tuple[Fault | None, list[ByteArray]]:
    """The answer, and the memory of each operand with its guards."""
    memory, rooms = guarded(group.sizes, len(group.pieces), decoder.dtype, layouts=layouts)
    return decoder.decode(*stored, rooms, check=check), memory


def same(found: list[ByteArray], wanted: list[ByteArray]) -> bool:
    return all(map(np.array_equal, found, wanted))


def paths() -> tuple[str, ...]:
    """At least the scalar one: a library that was just compiled must not have been refused."""
    found = available_paths()
    assert "scalar" in found
    return found


books = st.builds(
    lambda ladder, wild, seed: wild_codebook(ladder, seed=seed) if wild else bell_codebook(ladder),
    ladders | st.just(DEFAULT_LADDER),
    st.booleans(),
    st.integers(0, 9),
)
operand_sizes = st.lists(
    st.one_of(st.integers(1, 140), st.integers(1, 16).map(lambda n: 128 * n)).map(lambda n: 8 * n),
    min_size=1,
    max_size=3,
)


@st.composite
def groups(draw: st.DrawFn) -> tuple[Codebook, RandomGroup]:
    book = draw(books)
    planes = draw(st.lists(st.integers(1, len(book.ladder)), min_size=1, max_size=ROWS))
    sizes, seed, lead = draw(operand_sizes), draw(st.integers(0, 1 << 16)), draw(st.integers(0, 40))
    return book, random_group(book.ladder, sizes, planes, seed=seed, lead=lead)


# What decoding gives


@given(groups(), st.sampled_from(["s8", "u8", "s7"]), st.booleans(), st.integers(0, 999))
def test_every_path_decodes_to_the_bits_of_the_specification(
    given_group: tuple[Codebook, RandomGroup], weights: WeightForm, check: bool, seed: int
) -> None:
    book, group = given_group
    stored, layouts = group.stored(), random_layouts(group.sizes, seed=seed)
    decoder = NumpyDecoder(book, weights=weights)
    fault, wanted = run(decoder, group, stored, layouts=layouts, check=check)
    assert fault is None
    for path in paths():
        native = NativeDecoder(book, weights=weights, path=path)
        fault, found = run(native, group, stored, layouts=layouts, check=check)
        assert fault is None
        assert same(found, wanted), path


@pytest.mark.parametrize("level", range(5))
def test_operands_of_several_segments(level: int) -> None:
    book = bell_codebook()
    sizes = (2 * SEGMENT_WEIGHTS + 8, 1024, SEGMENT_WEIGHTS)
    group = random_group(book.ladder, sizes, (level + 1,), seed=level)
    fault, wanted = run(NumpyDecoder(book), group, group.stored())
    assert fault is None
    for path in paths():
        fault, found = run(NativeDecoder(book, path=path), group, group.stored())
        assert fault is None
        assert same(found, wanted)


@pytest.mark.parametrize("eighth", range(1, 128))
def test_short_records_of_every_size(eighth: int) -> None:
    book = bell_codebook()
    for planes in range(1, 6):
        group = random_group(book.ladder, (8 * eighth,), (planes,), seed=eighth)
        fault, wanted = run(NumpyDecoder(book), group, group.stored())
        assert fault is None
        for path in paths():
            fault, found = run(NativeDecoder(book, path=path), group, group.stored())
            assert fault is None
            assert same(found, wanted)


# Damage


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Codebook, RandomGroup, StoredGroup, bool]:
    """A group with some bits or some addresses changed; checksums may follow the bytes."""
    book, group = draw(groups())
    data, starts, shards = group.stored()
    data = data.copy()
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    shard = int(rng.integers(len(shards)))
    piece = int(rng.integers(shards["planes"][shard] + 1)) if draw(st.booleans()) else 0
    target = shards["pieces"][shard, piece : piece + 1]
    length = int(target["length"][0])
    at = int(starts[target["part"][0]] + target["start"][0])
    match draw(st.sampled_from(("bits", "length", "start", "part", "starts", "list", "head"))):
        case "bits" if length:
            data[at + rng.integers(length)] ^= 1 << int(rng.integers(8))
        case "length":
            target["length"] = draw(
                st.sampled_from((0, 1, 4, length - 1, length + 4, (1 << 32) - 1))
            )
        case "start":
            target["start"] = draw(st.sampled_from((1, data.size, (1 << 64) - 1, (1 << 64) - at)))
        case "part":
            target["part"] = draw(st.sampled_from((len(starts), 0xFFFFFFFF)))
        case "starts":
            starts[shard] = draw(st.sampled_from((data.size + 1, (1 << 64) - 1, 1 << 63)))
        case "list":
            words = data[at : at + length].view("<u2") if at % 2 == 0 else data[at : at + length]
            words[rng.integers(words.size)] = rng.integers(256)
        case _:
            data[at : at + 4] = rng.integers(0, 256, data[at : at + 4].size)
    if draw(st.booleans()):
        for found in shards["pieces"].reshape(-1, 1):
            part, size, start = (int(found[name][0]) for name in ("part", "length", "start"))
            if part < len(starts) and int(starts[part]) + start + size <= data.size:
                begin = int(starts[part]) + start
                found["checksum"] = crc32(data[begin : begin + size])
    return book, group, StoredGroup(data, starts, shards), draw(st.booleans())


@settings(max_examples=300)
@given(damaged())
def test_faults_are_those_of_the_specification_and_nothing_is_written_outside(
    example: tuple[Codebook, RandomGroup, StoredGroup, bool],
) -> None:
    book, group, stored, check = example
    wanted, expected = run(NumpyDecoder(book), group, stored, check=check)
    for path in paths():
        found, memory = run(NativeDecoder(book, path=path), group, stored, check=check)
        assert found == wanted, path
        # Slices come in falling order: those above the faulty one are written, those below not.
        done = found.row + 1 if found else 0
        for size, one, other in zip(group.sizes, memory, expected, strict=True):
            begin = AROUND + done * size
            assert np.array_equal(one[begin:], other[begin:])
            assert (one[:AROUND] == GUARD).all()
            assert (one[-AROUND:] == GUARD).all()


MISUSES: dict[str, Callable[[dict[str, Any]], object]] = {
    "bytes of another type": lambda a: a.update(data=a["data"].view(np.int8)),
    "bytes in a table": lambda a: a.update(data=a["data"].reshape(2, -1)),
    "bytes with gaps": lambda a: a.update(data=a["data"][::2]),
    "starts of another type": lambda a: a.update(starts=a["starts"].view(np.int64)),
    "starts in a table": lambda a: a.update(starts=a["starts"].reshape(1, -1)),
    "starts with gaps": lambda a: a.update(starts=a["starts"][::2]),
    "shards of another type": lambda a: a.update(shards=a["shards"]["row"].copy()),
    "shards with gaps": lambda a: a.update(shards=a["shards"][::2]),
    "planes": lambda a: a["shards"]["planes"].fill(6),
    "slices": lambda a: add(a, np.zeros((2, 64), np.int8), slices=2),
    "an operand of another type": lambda a: add(a, np.zeros((3, 64), np.uint8)),
    "an operand of another size": lambda a: add(a, np.zeros((3, 63), np.int8)),
    "an operand that is too long": lambda a: add(a, np.zeros((1 << 33, 0), np.int8)),
    "an operand with gaps": lambda a: add(a, np.zeros((3, 128), np.int8)[:, ::2]),
    "an operand in a row": lambda a: add(a, np.zeros(192, np.int8)),
    "slices that do not divide rows": lambda a: add(a, np.zeros((4, 64), np.int8)),
    "slices that do not divide columns": lambda a: add(a, np.zeros((3, 64), np.int8), columns=True),
    "parts that do not divide rows": lambda a: add(a, np.zeros((3, 64), np.int8), parts=2),
    "no part": lambda a: add(a, np.zeros((3, 64), np.int8), parts=0),
    "no slice": lambda a: add(a, np.zeros((3, 64), np.int8), slices=0),
    "a read-only operand": lambda a: a["operands"][0].matrix.setflags(write=False),
    "no operand": lambda a: a["operands"].clear(),
}


def add(
    given: dict[str, Any],
    matrix: NDArray[Any],
    *,
    slices: int = 3,
    parts: int = 1,
    columns: bool = False,
) -> None:
    given["operands"].append(OperandRoom(matrix, slices, parts, columns))


@pytest.mark.parametrize("wrong", MISUSES)
def test_what_no_bytes_can_cause_is_refused_as_by_the_specification(wrong: str) -> None:
    book = bell_codebook()
    group = random_group(book.ladder, (64, 64), (5, 5, 5), seed=0).stored()
    given: dict[str, Any] = group._asdict() | {"operands": rooms_for((64, 64), 3, np.int8)}
    assert group.data.size % 2 == 0
    MISUSES[wrong](given)
    said = set()
    for decoder in (NumpyDecoder(book), *(NativeDecoder(book, path=path) for path in paths())):
        with pytest.raises(PackFormatError) as refused:
            decoder.decode(**given)
        said.add(str(refused.value))
        assert not any(room.matrix.any() for room in given["operands"])
    assert len(said) == 1


def test_no_shards_decode_to_nothing() -> None:
    book = bell_codebook()
    group = random_group(book.ladder, (64,), (5, 5), seed=0).stored()
    empty = group._replace(shards=group.shards[:0])
    for decoder in (NumpyDecoder(book), *(NativeDecoder(book, path=path) for path in paths())):
        (room,) = rooms = rooms_for((64,), 2, np.int8)
        assert decoder.decode(*empty, rooms) is None
        assert not room.matrix.any()


def test_operands_whose_matrices_are_gone_are_not_taken_for_new_ones() -> None:
    book = bell_codebook()
    stored = random_group(book.ladder, (64,), (5,), seed=0).stored()
    decoder, (wanted,) = NativeDecoder(book), rooms_for((64,), 1, np.int8)
    decoder.decode(*stored, [wanted])
    for _ in range(200):
        (room,) = rooms_for((64,), 1, np.int8)
        decoder.decode(*stored, [room])
        assert np.array_equal(room.matrix, wanted.matrix)
        del room


def test_one_matrix_may_be_cut_in_several_ways() -> None:
    book = bell_codebook()
    stored = random_group(book.ladder, (64,), (5, 5), seed=0).stored()
    matrix, decoder, seen = np.zeros((8, 16), np.int8), NativeDecoder(book), set()
    for room in (
        OperandRoom(matrix, 2, 1, columns=False),
        OperandRoom(matrix, 2, 1, columns=True),
        OperandRoom(matrix, 2, 2, columns=True),
    ):
        assert decoder.decode(*stored, [room]) is None
        found = matrix.copy()
        assert NumpyDecoder(book).decode(*stored, [room]) is None
        assert np.array_equal(found, matrix)
        seen.add(found.tobytes())
    assert len(seen) == 3


# Checksums and word rows


@given(st.binary(max_size=700), st.integers(0, 0xFFFFFFFF))
def test_checksums_are_those_of_zlib(data: bytes, before: int) -> None:
    kernel = library.library()
    assert kernel is not None
    for features in kernel.paths.values():
        found = kernel.crc32(c_char_p(data), len(data), before, features)
        assert found == crc32(data, before)


@given(st.integers(1, 12), st.sampled_from((4, 6, 32)), st.integers(0, 99), st.integers(0, 3))
def test_word_rows_are_those_of_the_specification(
    groups_of: int, group: int, seed: int, rows: int
) -> None:
    hidden, rng = groups_of * group, np.random.default_rng(seed)
    raw = rng.integers(0, 256, (rows, row_bytes(hidden, group))).astype(np.uint8)
    scales = np.arange(0, 0x7C00, dtype=np.uint16)  # every half float: subnormal ones, no NaN
    scales = rng.choice(np.concatenate((scales, scales | 0x8000)), (rows, groups_of))
    raw[:, hidden // 2 : -4] = scales.astype("<u2").view(np.uint8)
    ids = rng.integers(0, 1 << 31, rows)
    for number, row in zip(ids.tolist(), raw, strict=True):
        row[-4:] = np.frombuffer(row_checksum(number, row[:-4]).to_bytes(4, "little"), np.uint8)
    wanted, other = np.full((rows, hidden), np.nan, np.float32), ids.copy()
    other[rows - 1 :] += 1
    bad = rows - 1 if rows else None
    assert portable_rows(raw, ids, group, wanted) is None
    assert portable_rows(raw, other, group, wanted.copy()) == bad
    for path in paths():
        found = np.full_like(wanted, np.nan)
        assert native_rows(raw, ids, group, found, path=path) is None
        assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32))
        assert native_rows(raw, other, group, found, path=path) == bad
        assert native_rows(raw, other, group, found, path=path, check=False) is None


def test_word_rows_that_do_not_fit_are_refused() -> None:
    raw, ids = np.zeros((2, 100), np.uint8), np.zeros(2, np.int64)
    for out in (np.zeros((2, 64), np.float32), np.zeros((1, 64), np.float32)):
        with pytest.raises(PackFormatError):
            native_rows(raw, ids, 32, out, path="scalar")
