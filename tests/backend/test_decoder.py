"""Decoding by graphs: the same bits as the specification, for any codebook, ladder and cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.quantization.encode import EncodedShard, Encoder
from sti.arrays import ByteArray
from sti.backend.onnxruntime import decode_steps
from sti.backend.onnxruntime.decoder import ShardDecoder
from sti.backend.working_buffer import OutlierRoom, WorkingBuffer
from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.decoder import Decoder
from sti.codec.lookup import SEGMENT_WEIGHTS, put_outliers
from sti.errors import PackCorruptError, PackFormatError
from tests.support.codes import CUT, bell, bell_codebook, ladders, wild_codebook
from tests.tools import decode_graphs

ROOM = OutlierRoom()
SIZES = [
    (8,),
    (8, 16, 8),
    (1000,),
    (400, 200, 400),
    (49152,),
    (12288,) * 4,
    (65536, 8, 65544),
    (393_224,),
    (196_608, 16, 196_608),
    (131_072,) * 3,
]


def encoded(codebook: Codebook, weights: int, count: int) -> list[EncodedShard]:
    return [Encoder(codebook, cut=CUT).encode(bell(weights, seed=seed)) for seed in range(count)]


def planes_of(shards: Sequence[EncodedShard], level: int) -> list[list[ByteArray]]:
    return [list(shard.planes.values())[: level + 1] for shard in shards]


def specified(
    decoder: Decoder, shards: Sequence[EncodedShard], level: int, weights: int
) -> ByteArray:
    """Each shard by the specification, ``[k, N]``."""
    out = np.empty((len(shards), weights), dtype=decoder.dtype)
    for row, planes, shard in zip(out, planes_of(shards, level), shards, strict=True):
        decoder.decode(planes, shard.outliers, row)
    return out.view(np.uint8)


def joined(out: WorkingBuffer, slices: Sequence[int]) -> ByteArray:
    """The slices as they lie in the operands, ``[k, N]``."""
    rows = [operand.reshape(len(operand), -1)[list(slices)] for operand in out.operands]
    return np.concatenate(rows, axis=1).view(np.uint8)


def buffer(decoder: Decoder, sizes: Sequence[int], slices: int) -> WorkingBuffer:
    return WorkingBuffer([(size,) for size in sizes], slices, decoder.dtype)


# The same as the specification


def test_graphs_are_those_that_the_tool_writes() -> None:
    assert decode_graphs.main(["--check"]) == 0


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("unsigned", [False, True])
def test_neighbouring_slices_decode_as_they_do_one_by_one(
    sizes: tuple[int, ...], unsigned: bool
) -> None:
    codebook, weights = bell_codebook(), sum(sizes)
    decoder = Decoder(codebook, unsigned=unsigned)
    shards = encoded(codebook, weights, 3)
    fast, out = ShardDecoder(decoder), buffer(decoder, sizes, 5)
    for level in range(len(codebook.ladder)):
        for count in (3, 1):
            chosen = shards[:count]
            fast.look_up(planes_of(chosen, level), 1, out)
            slices = list(range(1, 1 + count))
            out.put_outliers(slices, [shard.outliers for shard in chosen], decoder.flip, ROOM)
            expected = specified(decoder, chosen, level, weights)
            np.testing.assert_array_equal(joined(out, slices), expected)
    assert not joined(out, [0, 4]).any()


@settings(max_examples=60)
@given(
    ladder=ladders,
    eighths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    unsigned=st.booleans(),
    wild=st.booleans(),
)
def test_any_book_over_any_ladder_decodes_as_specified(
    ladder: tuple[int, ...], eighths: list[int], seed: int, unsigned: bool, wild: bool
) -> None:
    codebook = wild_codebook(ladder, seed=seed) if wild else bell_codebook(ladder)
    sizes = [8 * count for count in eighths]
    decoder, shards = Decoder(codebook, unsigned=unsigned), encoded(codebook, sum(sizes), 2)
    fast, out = ShardDecoder(decoder), buffer(decoder, sizes, 2)
    for level in range(len(ladder)):
        fast.look_up(planes_of(shards, level), 0, out)
        out.put_outliers([0, 1], [shard.outliers for shard in shards], decoder.flip, ROOM)
        expected = specified(decoder, shards, level, sum(sizes))
        np.testing.assert_array_equal(joined(out, [0, 1]), expected)


def test_outliers_of_scattered_slices_go_where_they_belong() -> None:
    decoder, sizes = Decoder(bell_codebook()), (65_536, 8, 65_544)
    shards = encoded(decoder.codebook, sum(sizes), 4)
    out, slices = buffer(decoder, sizes, 9), [7, 0, 3, 8]
    for number, shard in zip(slices, shards, strict=True):
        row = np.empty(sum(sizes), dtype=np.int8)
        decoder.look_up(list(shard.planes.values()), row)
        out.fill(number, row)
    out.put_outliers(slices, [shard.outliers for shard in shards], decoder.flip, ROOM)
    expected = specified(decoder, shards, len(DEFAULT_LADDER) - 1, sum(sizes))
    np.testing.assert_array_equal(joined(out, slices), expected)


def test_more_outliers_than_are_placed_in_one_go_are_placed() -> None:
    decoder, weights = Decoder(bell_codebook()), 196_608
    shard = Encoder(decoder.codebook, cut=CUT).encode(np.full(weights, 100, dtype=np.int8))
    out = buffer(decoder, (weights,), 3)
    out.put_outliers([0, 1, 2], [shard.outliers] * 3, None, ROOM)
    assert (out.flat == 100).all()


def test_threads_decode_with_a_decoder_each() -> None:
    codebook, sizes = bell_codebook(), (24_576, 24_576)
    decoder, shards = Decoder(codebook), encoded(codebook, sum(sizes), 4)
    expected = [specified(decoder, shards, level, sum(sizes)) for level in range(5)]

    def check(_: int) -> None:
        fast, out, room = ShardDecoder(decoder), buffer(decoder, sizes, 4), OutlierRoom()
        for level in 5 * list(range(5)):
            fast.look_up(planes_of(shards, level), 0, out)
            out.put_outliers(range(4), [shard.outliers for shard in shards], None, room)
            np.testing.assert_array_equal(joined(out, range(4)), expected[level])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(8)))


@pytest.mark.parametrize("refused", [False, True])
def test_without_graphs_that_work_the_specification_decodes(
    monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    with monkeypatch.context() as patch:  # graphs that take a byte for its upper half
        patch.setattr(decode_graphs, "_high_half", lambda _, x: x)
        wrong = decode_graphs.made()
    assert wrong["two_ones"] != decode_graphs.made()["two_ones"]
    monkeypatch.setattr(decode_steps, "_model", lambda name: b"" if refused else wrong[name])
    decoder, sizes = Decoder(bell_codebook()), (64,)
    shards = encoded(decoder.codebook, 64, 1)
    fast, out = ShardDecoder(decoder), buffer(decoder, sizes, 1)
    for level in range(len(DEFAULT_LADDER)):
        fast.look_up(planes_of(shards, level), 0, out)
        out.put_outliers([0], [shards[0].outliers], None, ROOM)
        np.testing.assert_array_equal(joined(out, [0]), specified(decoder, shards, level, 64))


def test_decoding_again_allocates_next_to_nothing() -> None:
    codebook, sizes = bell_codebook(), (196_608, 196_608)
    decoder, shards = Decoder(codebook), encoded(codebook, sum(sizes), 2)
    fast, out = ShardDecoder(decoder), buffer(decoder, sizes, 2)
    records = [shard.outliers for shard in shards]

    def decode_all() -> None:
        for level in range(len(codebook.ladder)):
            fast.look_up(planes_of(shards, level), 0, out)
            out.put_outliers([0, 1], records, None, ROOM)

    decode_all()
    tracemalloc.start()
    try:
        decode_all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


# What it refuses


def test_outliers_cut_short_anywhere_are_refused() -> None:
    decoder, weights = Decoder(bell_codebook()), SEGMENT_WEIGHTS + 8
    good = Encoder(decoder.codebook, cut=CUT).encode(bell(weights)).outliers
    needed = 8 + 3 * int(good[:8].view(np.uint32).sum())
    out = buffer(decoder, (weights,), 2)
    for length in (*range(12), needed // 2, needed - 1):
        with pytest.raises(PackCorruptError, match="too short for what it lists"):
            out.put_outliers([0, 1], [good, good[:length]], None, ROOM)
    out.put_outliers([0, 1], [good, good[:needed]], None, ROOM)


@pytest.mark.parametrize("weights", [64, SEGMENT_WEIGHTS + 64])
@pytest.mark.parametrize("place", [0, 1])
def test_outlier_beyond_the_end_of_the_shard_is_refused(weights: int, place: int) -> None:
    decoder = Decoder(bell_codebook())
    q = np.zeros(weights, dtype=np.int8)
    q[-1] = 99
    good = Encoder(decoder.codebook, cut=CUT).encode(q).outliers
    bad = good.copy()
    at = 4 * -(-weights // SEGMENT_WEIGHTS)
    bad[at : at + 2].view("<u2")[0] = 64
    records = [good, good]
    out = buffer(decoder, (weights,), 2)
    out.put_outliers([0, 1], records, None, ROOM)
    records[place] = bad
    with pytest.raises(PackCorruptError, match=f"end of a shard of {weights} weights"):
        out.put_outliers([0, 1], records, None, ROOM)


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_outliers_are_refused_or_stay_within_their_slices(data: st.DataObject) -> None:
    sizes = data.draw(st.sampled_from([(24, 8, 16), (SEGMENT_WEIGHTS, 64), (131_080, 40_000)]))
    weights, decoder = sum(sizes), Decoder(bell_codebook())
    segments = -(-weights // SEGMENT_WEIGHTS)
    record = np.frombuffer(data.draw(st.binary(max_size=80)), dtype=np.uint8).copy()
    if record.size >= 4 * segments:  # counts that may hold
        counts = st.lists(st.integers(0, 9), min_size=segments, max_size=segments)
        record[: 4 * segments].view("<u4")[:] = data.draw(counts)
    out, expected = buffer(decoder, sizes, 3), np.zeros(weights, dtype=np.int8)
    planes = planes_of(encoded(decoder.codebook, weights, 1), 0)[0]
    try:
        decoder.decode(planes, record, expected.copy())
    except PackCorruptError:
        with pytest.raises(PackCorruptError):
            out.put_outliers([1], [record], None, ROOM)
    else:
        out.put_outliers([1], [record], None, ROOM)
        put_outliers(record, expected.view(np.uint8), None)
        np.testing.assert_array_equal(joined(out, [1])[0], expected.view(np.uint8))
    assert not joined(out, [0, 2]).any()


def test_outliers_out_of_order_are_refused() -> None:
    decoder = Decoder(bell_codebook())
    shard = Encoder(decoder.codebook, cut=CUT).encode(np.full(64, 99, dtype=np.int8))
    record = shard.outliers.copy()
    record[4:8].view("<u2")[:] = record[4:8].view("<u2")[::-1].copy()
    with pytest.raises(PackCorruptError, match="not in ascending order"):
        buffer(decoder, (64,), 1).put_outliers([0], [record], None, ROOM)
    with pytest.raises(PackCorruptError, match="not in ascending order"):
        decoder.decode(list(shard.planes.values()), record, np.empty(64, dtype=np.int8))


def test_planes_that_do_not_fit_are_refused() -> None:
    decoder = Decoder(bell_codebook())
    shards = encoded(decoder.codebook, 64, 1)
    planes = planes_of(shards, 4)[0]
    fast, out = ShardDecoder(decoder), buffer(decoder, (64,), 1)
    for wrong in ([], [*planes, planes[-1]]):
        with pytest.raises(PackFormatError):
            fast.look_up([wrong], 0, out)
    with pytest.raises(PackCorruptError, match="does not fit a shard of 64 weights"):
        fast.look_up([[planes[0][:-1]]], 0, out)
