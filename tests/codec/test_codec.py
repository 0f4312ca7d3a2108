"""The nested code: what decoding gives, on every path, and what it refuses."""

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

from shard_tools.quantization.codebook import build_codebook
from shard_tools.quantization.encode import EncodedShard, Encoder, best_codes
from sti.arrays import ByteArray
from sti.codec.codebook import DEFAULT_LADDER, Codebook, check_ladder, plane_bytes
from sti.codec.decoder import Decoder
from sti.codec.lookup import SEGMENT_WEIGHTS
from sti.codec.tables import Recipes
from sti.errors import InputError, PackCorruptError, PackFormatError
from tests.support.codes import CUT, Int8, bell, bell_codebook, ladders, wild_codebook
from tests.support.paths import ROOT

GOLDEN = ROOT / "tests" / "golden" / "nested_code.json"


def specified_codes(planes: Sequence[ByteArray], ladder: Sequence[int], weights: int) -> list[int]:
    """The code of every weight, bit by bit as the layout is written down."""
    codes = [0] * weights
    for lower, bits, plane in zip((0, *ladder), ladder, planes, strict=False):
        start = 0
        for width in [2] * ((bits - lower) // 2) + [1] * ((bits - lower) % 2):
            for weight in range(weights):
                quad, place = divmod(weight, 4)
                if width == 2:
                    found = plane[start + quad] >> (2 * place)
                else:
                    half, byte = divmod(quad, weights // 8)
                    found = plane[start + byte] >> (4 * half + place)
                codes[weight] = codes[weight] << width | int(found) & ((1 << width) - 1)
            start += weights * width // 8
    return codes


def decoded(decoder: Decoder, shard: EncodedShard, level: int, weights: int) -> Int8:
    """Decoded as int8, whatever the decoder writes."""
    out = np.empty(weights, dtype=decoder.dtype)
    planes = list(shard.planes.values())[: level + 1]
    decoder.decode(planes, shard.outliers, out)
    return (out ^ 0x80).view(np.int8) if decoder.dtype == np.uint8 else out


def expected(codebook: Codebook, q: Int8, level: int, cut: int) -> Int8:
    """What a fidelity stands for: a value of the codebook, or the outlier itself."""
    bits = codebook.ladder[level]
    codes = best_codes(codebook)[q.view(np.uint8)] >> (codebook.ladder[-1] - bits)
    is_outlier = np.abs(q.astype(np.int64)) > cut
    return np.where(is_outlier, q, codebook.values[bits][codes]).astype(np.int8)


# What decoding gives


def test_golden_file_still_encodes_and_decodes_to_the_same_bytes() -> None:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    codebook = Codebook.from_json(golden["book"])
    q = np.frombuffer(bytes.fromhex(golden["q"]), dtype=np.int8)
    shard = Encoder(codebook, cut=golden["cut"]).encode(q)
    planes = {str(bits): plane.tobytes().hex() for bits, plane in shard.planes.items()}
    assert planes == golden["planes"]
    assert shard.outliers.tobytes().hex() == golden["outliers"]
    for level, (bits, wanted) in enumerate(golden["decoded"].items()):
        assert codebook.ladder[level] == int(bits)
        assert decoded(Decoder(codebook), shard, level, q.size).tobytes().hex() == wanted


def test_golden_counts_still_give_the_same_book() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    counts = np.array(golden["counts"], dtype=np.int64)
    codebook = build_codebook(counts, cut=golden["cut"], ladder=golden["ladder"])
    assert codebook.to_json() == golden["book"]


@settings(max_examples=40)
@given(ladder=ladders, eighths=st.integers(1, 40), seed=st.integers(0, 99), unsigned=st.booleans())
def test_any_book_over_any_ladder_decodes_as_specified(
    ladder: tuple[int, ...], eighths: int, seed: int, unsigned: bool
) -> None:
    codebook = wild_codebook(ladder, seed=seed)
    q = bell(8 * eighths, seed=seed)
    shard = Encoder(codebook, cut=CUT).encode(q)
    decoder = Decoder(codebook, unsigned=unsigned)
    for level in range(len(ladder)):
        found = decoded(decoder, shard, level, q.size)
        np.testing.assert_array_equal(found, expected(codebook, q, level, CUT))


@settings(max_examples=20)
@given(ladder=ladders, eighths=st.integers(1, 12), seed=st.integers(0, 99))
def test_planes_hold_codes_in_the_specified_places(
    ladder: tuple[int, ...], eighths: int, seed: int
) -> None:
    codebook = wild_codebook(ladder, seed=seed)
    q = bell(8 * eighths, seed=seed)
    planes = list(Encoder(codebook, cut=CUT).encode(q).planes.values())
    assert tuple(plane.nbytes for plane in planes) == plane_bytes(ladder, q.size)
    assert (
        specified_codes(planes, ladder, q.size) == best_codes(codebook)[q.view(np.uint8)].tolist()
    )


@pytest.mark.parametrize("ladder", [(2, 3, 4, 6, 8), (2, 4, 8), (2, 8), (3, 4, 8), (2, 5, 8)])
def test_top_of_eight_bits_is_the_int8_grid_itself(ladder: tuple[int, ...]) -> None:
    codebook = bell_codebook(ladder)
    q = np.tile(np.arange(-127, 128, dtype=np.int8), 8)
    shard = Encoder(codebook, cut=CUT).encode(q)
    np.testing.assert_array_equal(decoded(Decoder(codebook), shard, len(ladder) - 1, q.size), q)


def test_outliers_are_exact_at_every_fidelity() -> None:
    codebook, q = bell_codebook(), bell(4096)
    shard = Encoder(codebook, cut=CUT).encode(q)
    is_outlier = np.abs(q.astype(np.int64)) > CUT
    assert is_outlier.any()
    for level in range(len(codebook.ladder)):
        found = decoded(Decoder(codebook), shard, level, q.size)
        np.testing.assert_array_equal(found[is_outlier], q[is_outlier])
        assert np.abs(found[~is_outlier]).max() <= CUT + 1


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("weights", [393_216, 393_224, 884_800])
def test_shards_longer_than_a_segment_decode(weights: int, unsigned: bool) -> None:
    q = bell(weights)
    assert weights > 2 * SEGMENT_WEIGHTS
    for codebook in (bell_codebook(), wild_codebook((2, 3, 5, 8), seed=1)):
        shard = Encoder(codebook, cut=CUT).encode(q)
        decoder = Decoder(codebook, unsigned=unsigned)
        for level in range(len(codebook.ladder)):
            found = decoded(decoder, shard, level, weights)
            np.testing.assert_array_equal(found, expected(codebook, q, level, CUT))


def test_shards_of_nothing_but_outliers_decode() -> None:
    q = np.full(196_608, 100, dtype=np.int8)
    shard = Encoder(bell_codebook(), cut=CUT).encode(q)
    for unsigned in (False, True):
        found = decoded(Decoder(bell_codebook(), unsigned=unsigned), shard, 0, q.size)
        np.testing.assert_array_equal(found, q)


def test_planes_may_lie_at_any_address() -> None:
    codebook, q = bell_codebook(), bell(4096)
    shard = Encoder(codebook, cut=CUT).encode(q)
    for shift in (1, 2, 3):
        moved = {}
        for bits, plane in shard.planes.items():
            moved[bits] = np.concatenate((np.zeros(shift, np.uint8), plane))[shift:]
        record = np.concatenate((np.zeros(shift, np.uint8), shard.outliers))[shift:]
        found = decoded(Decoder(codebook), EncodedShard(moved, record), 4, q.size)
        np.testing.assert_array_equal(found, q)


def test_built_books_of_the_default_ladder_decode_without_assembling_codes() -> None:
    for codebook in (bell_codebook(), bell_codebook((2, 4, 6, 8)), bell_codebook((2, 8))):
        recipes = Recipes(codebook.ladder, codebook.values, unsigned=True)
        assert all(recipe.pairs is None for recipe in recipes)
    assert any(
        r.pairs is not None
        for r in Recipes((8,), wild_codebook((8,), seed=0).values, unsigned=True)
    )


# What it refuses


def test_outliers_cut_short_anywhere_are_refused() -> None:
    codebook, q = bell_codebook(), bell(SEGMENT_WEIGHTS + 8)
    shard = Encoder(codebook, cut=CUT).encode(q)
    counts = shard.outliers[:8].view(np.uint32)
    needed = 8 + 3 * int(counts.sum())
    assert shard.outliers.nbytes == needed + -needed % 4
    for length in (*range(12), needed // 2, needed - 1):
        short = EncodedShard(shard.planes, shard.outliers[:length])
        with pytest.raises(PackCorruptError, match="too short for what it lists"):
            decoded(Decoder(codebook), short, 0, q.size)
    decoded(Decoder(codebook), EncodedShard(shard.planes, shard.outliers[:needed]), 0, q.size)


@pytest.mark.parametrize("count", [1, 3, 2**31, 2**32 - 1])
def test_outlier_counts_without_entries_are_refused(count: int) -> None:
    codebook = bell_codebook()
    shard = Encoder(codebook, cut=CUT).encode(np.zeros(64, dtype=np.int8))
    record = np.array([count], dtype="<u4").view(np.uint8)
    with pytest.raises(PackCorruptError):
        decoded(Decoder(codebook), EncodedShard(shard.planes, record), 0, 64)


@pytest.mark.parametrize("weights", [64, SEGMENT_WEIGHTS + 64])
def test_outlier_beyond_the_end_of_the_shard_is_refused(weights: int) -> None:
    codebook = bell_codebook()
    q = np.zeros(weights, dtype=np.int8)
    q[-1] = 99
    shard = Encoder(codebook, cut=CUT).encode(q)
    record = shard.outliers.copy()
    at = 4 * -(-weights // SEGMENT_WEIGHTS)
    assert record[at : at + 2].view("<u2")[0] == 63
    decoded(Decoder(codebook), EncodedShard(shard.planes, record), 0, weights)
    record[at : at + 2].view("<u2")[0] = 64
    with pytest.raises(PackCorruptError, match=f"end of a shard of {weights} weights"):
        decoded(Decoder(codebook), EncodedShard(shard.planes, record), 0, weights)


def test_plane_of_the_wrong_size_is_refused() -> None:
    codebook, q = bell_codebook(), bell(64)
    shard = Encoder(codebook, cut=CUT).encode(q)
    for bits in codebook.ladder:
        for wrong in (shard.planes[bits][:-1], np.append(shard.planes[bits], np.uint8(0))):
            planes = {**shard.planes, bits: wrong}
            with pytest.raises(PackCorruptError, match="does not fit a shard of 64 weights"):
                decoded(Decoder(codebook), EncodedShard(planes, shard.outliers), 4, 64)


def test_planes_without_a_fidelity_are_refused() -> None:
    decoder = Decoder(bell_codebook())
    shard = Encoder(decoder.codebook, cut=CUT).encode(bell(64))
    planes = list(shard.planes.values())
    for wrong in ([], [*planes, planes[-1]]):
        out = np.empty(64, dtype=np.int8)
        with pytest.raises(PackFormatError):
            decoder.decode(wrong, shard.outliers, out)


@pytest.mark.parametrize("weights", [0, 4, 12, 1001])
def test_weights_must_come_in_eights(weights: int) -> None:
    with pytest.raises(PackFormatError, match="multiple of 8"):
        plane_bytes(DEFAULT_LADDER, weights)
    with pytest.raises(PackFormatError):
        Encoder(bell_codebook(), cut=CUT).encode(np.zeros(weights, dtype=np.int8))


@pytest.mark.parametrize("ladder", [(), (1, 2), (2, 2), (3, 2), (2, 9), (0,), (8, 4)])
def test_malformed_ladders_are_refused(ladder: tuple[int, ...]) -> None:
    with pytest.raises(PackFormatError, match="increase within"):
        check_ladder(ladder)


@pytest.mark.parametrize("cut", [0, 128, -1])
def test_outliers_must_begin_inside_the_alphabet(cut: int) -> None:
    with pytest.raises(InputError):
        Encoder(bell_codebook(), cut=cut)
    with pytest.raises(InputError):
        build_codebook(np.zeros(256, dtype=np.int64), cut=cut)


# Books


@given(ladder=ladders, seed=st.integers(0, 99))
def test_books_survive_json(ladder: tuple[int, ...], seed: int) -> None:
    codebook = wild_codebook(ladder, seed=seed)
    again = Codebook.from_json(json.loads(json.dumps(codebook.to_json())))
    assert again.ladder == codebook.ladder
    for bits in ladder:
        np.testing.assert_array_equal(again.values[bits], codebook.values[bits])


def _broken_books() -> list[Any]:
    def changed(**changes: Any) -> dict[str, Any]:
        return {**bell_codebook((2, 3)).to_json(), **changes}

    four, eight = [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]
    return [
        None,
        [],
        {},
        {"ladder": [2, 3]},
        changed(more=1),
        changed(ladder=[3, 2]),
        changed(ladder=[2]),
        changed(ladder=[2, 3, 4]),
        changed(ladder=["2", "3"]),
        changed(ladder=[2.0, 3.0]),
        changed(ladder=[True, 3]),
        changed(ladder=2),
        changed(values=[four, eight]),
        changed(values={"2": four}),
        changed(values={"3": eight, "2": four}),
        changed(values={"2": four, "3": eight[:-1]}),
        changed(values={"2": four, "3": [*eight, 8]}),
        changed(values={"2": [0, 1, 2, 128], "3": eight}),
        changed(values={"2": [0, 1, 2, -129], "3": eight}),
        changed(values={"2": [0, 1, 2, 3.0], "3": eight}),
        changed(values={"2": [0, 1, 2, None], "3": eight}),
        changed(values={"2": [0, 1, 2, True], "3": eight}),
        changed(values={"2": "0123", "3": eight}),
    ]


@pytest.mark.parametrize("data", _broken_books(), ids=repr)
def test_malformed_books_are_refused(data: Any) -> None:
    with pytest.raises(PackFormatError):
        Codebook.from_json(data)


def test_values_of_a_book_cannot_be_changed() -> None:
    values = {2: np.zeros(4, dtype=np.int8)}
    codebook = Codebook((2,), values)
    values[2][0] = 1
    assert codebook.values[2][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        codebook.values[2][0] = 1


class Awaited(np.ndarray[Any, Any]):
    """Values of a codebook whose readers wait for one another."""

    readers: Barrier

    def view(self, *args: Any) -> Any:
        with suppress(BrokenBarrierError):  # where only one thread reads them, it goes on alone
            self.readers.wait(timeout=1)
        return np.asarray(self).view(*args)


def test_threads_that_ask_for_a_recipe_at_once_are_given_the_same_one() -> None:
    codebook = bell_codebook()
    values = {bits: table.view(Awaited) for bits, table in codebook.values.items()}
    values[codebook.ladder[1]].readers = Barrier(4)
    recipes = Recipes(codebook.ladder, values, unsigned=False)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: recipes[1], range(4)))
    assert all(recipe is found[0] for recipe in found)
