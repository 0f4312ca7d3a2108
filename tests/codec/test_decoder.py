"""Decoding slice groups: what every path gives, against a reader that goes bit by bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shard_tools.quantization.codebook import histogram
from shard_tools.quantization.encode import EncodedShard, Encoder, best_codes
from sti.codec.codebook import Codebook, plane_bytes
from sti.codec.decoders import make_decoder
from sti.codec.halves import bell_of, halves_of
from sti.codec.pieces import GroupDecoder, OperandRoom
from sti.codec.tables import Recipes
from sti.codec.weights import WeightForm, written_codes
from tests.support.codes import (
    CUT,
    Int8,
    bell,
    bell_codebook,
    ladders,
    specified_codes,
    specified_weights,
    wild_codebook,
)
from tests.support.groups import (
    GUARD,
    guarded,
    random_layouts,
    rooms_for,
    stored_group,
    untouched,
)
from tests.support.paths import GOLDEN

eights = st.integers(1, 300).map(lambda count: 8 * count)
operand_sizes = st.lists(st.one_of(eights, st.sampled_from([1024, 2048])), min_size=1, max_size=3)
shares = st.sampled_from([0.0, 0.01, 1.0])


def weights_of(count: int, *, seed: int, share: float) -> Int8:
    """Weights of which about this share are outliers."""
    rng = np.random.default_rng(seed)
    inside = rng.integers(-CUT, CUT + 1, count)
    beyond = rng.choice([-127, -CUT - 1, CUT + 1, 127], count)
    return np.where(rng.random(count) < share, beyond, inside).astype(np.int8)


def decoded(
    decoder: GroupDecoder, shards: Sequence[EncodedShard], sizes: Sequence[int], planes: int
) -> Int8:
    """All shards as int8 ``[shards, weights]``, uint8 or not."""
    group = stored_group(shards, [planes] * len(shards))
    rooms = rooms_for(sizes, len(shards), decoder.dtype)
    assert decoder.decode(*group, rooms) is None
    found = np.concatenate([room.matrix for room in rooms], axis=1)
    return (found ^ 0x80).view(np.int8) if decoder.dtype == np.uint8 else found


def half(outlier: int) -> int:
    """Half of an outlier: the nearest whole number, the even one of two, from -64 to 63."""
    low = outlier // 2
    return min(low + (outlier % 2 and low % 2), 63)


def halved(codebook: Codebook, level: int, decoded: Int8, is_outlier: NDArray[np.bool_]) -> Int8:
    """The halves of decoded weights."""
    values = codebook.values[codebook.ladder[level]]
    of_value = dict(zip(values.tolist(), halves_of(values, bell_of(codebook)), strict=True))
    halves = [
        half(weight) if outlier else of_value[weight]
        for weight, outlier in zip(decoded.tolist(), is_outlier, strict=True)
    ]
    return np.array(halves, np.int8)


def expected(codebook: Codebook, q: Int8, level: int, cut: int) -> Int8:
    """What a fidelity stands for: a value of the codebook, or the outlier itself."""
    bits = codebook.ladder[level]
    codes = best_codes(codebook)[q.view(np.uint8)] >> (codebook.ladder[-1] - bits)
    is_outlier = np.abs(q.astype(np.int64)) > cut
    return np.where(is_outlier, q, codebook.values[bits][codes]).astype(np.int8)


def test_golden_file_still_encodes_and_decodes_to_the_same_bytes(path: str) -> None:
    golden: dict[str, Any] = json.loads((GOLDEN / "nested_code.json").read_text(encoding="utf-8"))
    codebook, sizes = Codebook.from_json(golden["book"]), golden["sizes"]
    q = np.frombuffer(bytes.fromhex(golden["q"]), dtype=np.int8)
    shard = Encoder(codebook, cut=golden["cut"]).encode(q, sizes)
    planes = {str(bits): plane.tobytes().hex() for bits, plane in shard.planes.items()}
    assert planes == golden["planes"]
    assert shard.outliers.tobytes().hex() == golden["outliers"]
    decoder = make_decoder(codebook, weights="s8", path=path)
    assert decoder.path == path
    for level, (bits, wanted) in enumerate(golden["decoded"].items()):
        assert codebook.ladder[level] == int(bits)
        assert decoded(decoder, [shard], sizes, level + 1).tobytes().hex() == wanted


@settings(max_examples=25)
@given(
    ladder=ladders,
    sizes=operand_sizes,
    seed=st.integers(0, 99),
    share=shares,
    weights=st.sampled_from(["s8", "u8", "s7"]),
)
def test_any_book_over_any_ladder_decodes_as_it_is_written_down(
    path: str,
    ladder: tuple[int, ...],
    sizes: list[int],
    seed: int,
    share: float,
    weights: WeightForm,
) -> None:
    codebook = wild_codebook(ladder, seed=seed)
    q = weights_of(sum(sizes), seed=seed, share=share)
    shard = Encoder(codebook, cut=CUT).encode(q, sizes)
    decoder = make_decoder(codebook, weights=weights, path=path)
    for planes in range(1, len(ladder) + 1):
        found = decoded(decoder, [shard], sizes, planes)[0]
        wanted = specified_weights(shard, codebook, sizes, planes)
        np.testing.assert_array_equal(wanted, expected(codebook, q, planes - 1, CUT))
        if weights == "s7":
            wanted = halved(codebook, planes - 1, wanted, np.abs(q.astype(np.int64)) > CUT)
        np.testing.assert_array_equal(found, wanted)


@settings(max_examples=20)
@given(ladder=ladders, sizes=operand_sizes, seed=st.integers(0, 99))
def test_planes_hold_codes_in_the_specified_places(
    ladder: tuple[int, ...], sizes: list[int], seed: int
) -> None:
    codebook = wild_codebook(ladder, seed=seed)
    q = bell(sum(sizes), seed=seed)
    planes = list(Encoder(codebook, cut=CUT).encode(q, sizes).planes.values())
    assert tuple(plane.nbytes for plane in planes) == plane_bytes(ladder, q.size)
    stored = [plane.tobytes() for plane in planes]
    assert specified_codes(stored, ladder, sizes) == best_codes(codebook)[q.view(np.uint8)].tolist()


@pytest.mark.parametrize("ladder", [(2, 3, 4, 6, 8), (2, 4, 8), (2, 8), (3, 4, 8), (2, 5, 8)])
def test_top_of_eight_bits_is_the_int8_grid_itself(path: str, ladder: tuple[int, ...]) -> None:
    codebook = bell_codebook(ladder)
    q = np.tile(np.arange(-127, 128, dtype=np.int8), 8)
    shard = Encoder(codebook, cut=CUT).encode(q, [q.size])
    decoder = make_decoder(codebook, weights="s8", path=path)
    np.testing.assert_array_equal(decoded(decoder, [shard], [q.size], len(ladder))[0], q)


@pytest.mark.parametrize("weights", ["s8", "u8"])
@pytest.mark.parametrize(
    "sizes",
    [(65_536,), (65_544, 8), (196_608, 196_608), (66_000, 131_080, 65_528), (1_048_576 + 8,)],
)
def test_operands_longer_than_a_segment_decode(
    path: str, sizes: tuple[int, ...], weights: WeightForm
) -> None:
    q = bell(sum(sizes))
    for codebook in (bell_codebook(), wild_codebook((2, 3, 5, 8), seed=1)):
        shard = Encoder(codebook, cut=CUT).encode(q, sizes)
        decoder = make_decoder(codebook, weights=weights, path=path)
        for level in range(len(codebook.ladder)):
            found = decoded(decoder, [shard], sizes, level + 1)[0]
            np.testing.assert_array_equal(found, expected(codebook, q, level, CUT))


@settings(max_examples=15)
@given(
    sizes=st.lists(eights, min_size=1, max_size=3),
    planes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    lead=st.integers(0, 9),
    shift=st.integers(0, 3),
    seed=st.integers(0, 999),
)
def test_shards_fill_their_slices_and_nothing_else(
    path: str,
    sizes: list[int],
    planes: list[int],
    lead: int,
    shift: int,
    seed: int,
) -> None:
    """Each at a fidelity of its own, at any address, in any order, side by side or not."""
    codebook, count = bell_codebook(), len(planes)
    encoder = Encoder(codebook, cut=CUT)
    q = bell(count * sum(sizes), seed=seed).reshape(count, -1)
    group = stored_group([encoder.encode(row, sizes) for row in q], planes, lead=lead)
    slices = np.random.default_rng(seed).permutation(count + 2)[:count]
    group.shards["row"] = slices
    layouts = random_layouts(sizes, seed=seed)
    memory, rooms = guarded(sizes, count + 2, np.int8, shift=shift, layouts=layouts)
    assert make_decoder(codebook, weights="s8", path=path).decode(*group, rooms) is None
    for place in range(count):
        want = np.split(expected(codebook, q[place], planes[place] - 1, CUT), np.cumsum(sizes)[:-1])
        for room, part in zip(rooms, want, strict=True):
            found = room.of(slices[place])
            np.testing.assert_array_equal(found.reshape(-1), part)
            found.view(np.uint8)[...] = GUARD
    assert untouched(memory)


def test_slices_side_by_side_have_the_columns_that_are_written_down(path: str) -> None:
    codebook, slices, parts, rows, columns = bell_codebook(), 3, 2, 12, 20
    q = bell(slices * parts * rows * columns).reshape(slices, parts, rows, columns)
    encoder = Encoder(codebook, cut=CUT)
    shards = [encoder.encode(part.reshape(-1), [part.size]) for part in q]
    group = stored_group(shards, [5] * slices)
    matrix = np.zeros((rows, slices * parts * columns), np.int8)
    decoder = make_decoder(codebook, weights="s8", path=path)
    assert decoder.decode(*group, [OperandRoom(matrix, slices, parts, columns=True)]) is None
    for s in range(slices):
        for p in range(parts):
            first = (s * parts + p) * columns
            np.testing.assert_array_equal(matrix[:, first : first + columns], q[s, p])
    below = np.zeros((slices * parts * rows, columns), np.int8)
    assert decoder.decode(*group, [OperandRoom(below, slices, parts, columns=False)]) is None
    np.testing.assert_array_equal(below, q.reshape(-1, columns))


@pytest.mark.parametrize("columns", [8, 24, 32, 48, 64, 256, 1000])
def test_wide_and_narrow_columns_of_many_records(path: str, columns: int) -> None:
    """Rows that are split between the parts that are decoded at a time."""
    codebook, slices, rows = bell_codebook(), 2, 136
    q = bell(slices * rows * columns).reshape(slices, -1)
    encoder = Encoder(codebook, cut=CUT)
    shards = [encoder.encode(part, [part.size]) for part in q]
    matrix = np.zeros((rows, slices * columns), np.int8)
    decoder = make_decoder(codebook, weights="s8", path=path)
    room = OperandRoom(matrix, slices, 1, columns=True)
    assert decoder.decode(*stored_group(shards, [5] * slices), [room]) is None
    np.testing.assert_array_equal(matrix[:, :columns].reshape(-1), q[0])
    np.testing.assert_array_equal(matrix[:, columns:].reshape(-1), q[1])


def test_threads_share_a_decoder(path: str) -> None:
    codebook, sizes = bell_codebook(), [4096, 1000]
    encoder = Encoder(codebook, cut=CUT)
    q = bell(8 * sum(sizes)).reshape(8, -1)
    group = stored_group([encoder.encode(row, sizes) for row in q], [5] * 8)
    decoder = make_decoder(codebook, weights="s8", path=path)

    def work(_: int) -> Int8:
        rooms = rooms_for(sizes, 8, np.int8)
        assert decoder.decode(*group, rooms) is None
        return np.concatenate([room.matrix for room in rooms], axis=1)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(8)):
            np.testing.assert_array_equal(found, q)


class Awaited(np.ndarray[Any, Any]):
    """Values of a codebook whose readers wait for one another."""

    readers: Barrier

    def __getitem__(self, places: Any) -> Any:
        with suppress(BrokenBarrierError):  # where only one thread reads them, it goes on alone
            self.readers.wait(timeout=1)
        return np.asarray(self)[places]


def test_threads_that_ask_for_a_recipe_at_once_are_given_the_same_one() -> None:
    codebook = bell_codebook()
    tables = written_codes(codebook, "s8")
    values = {bits: table.view(Awaited) for bits, table in tables.items()}
    values[codebook.ladder[1]].readers = Barrier(4)
    recipes = Recipes(codebook.ladder, values)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: recipes.of(2), range(4)))
    assert all(recipe is found[0] for recipe in found)


def test_outliers_are_exact_at_every_fidelity() -> None:
    codebook, q = bell_codebook(), bell(4096)
    shard = Encoder(codebook, cut=CUT).encode(q, [q.size])
    is_outlier = np.abs(q.astype(np.int64)) > CUT
    assert is_outlier.any() and histogram(q)[128 + CUT + 1 :].any()
    for planes in range(1, len(codebook.ladder) + 1):
        found = decoded(make_decoder(codebook, weights="s8"), [shard], [q.size], planes)[0]
        np.testing.assert_array_equal(found[is_outlier], q[is_outlier])
        assert np.abs(found[~is_outlier]).max() <= CUT + 1
