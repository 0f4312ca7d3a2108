"""Hostile packs whose weights do harm: what is read during runs, and the index that leads there.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed, with checksums
that are right except where those are the harm.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import numpy as np

from benchmarks.security_harms import EITHER, REFUSED, Kind
from benchmarks.security_packs import PackParts, Tensor
from sti.codec.word_rows import row_checksum


def _gains(parts: PackParts, rng: Random) -> None:
    value = rng.choice((np.nan, np.inf, -1.0, 3e38))
    parts.change(
        "index.gains", lambda array: array.reshape(-1).__setitem__(rng.randrange(9), value)
    )


def _other_gains(parts: PackParts, rng: Random) -> None:
    """Any importance is a stranger's to state."""
    noise = np.random.default_rng(rng.randrange(1 << 30))
    scale = rng.choice((0.0, 1e-30, 1.0, 1e14))
    parts.change("index.gains", lambda a: np.copyto(a, noise.random(a.shape, np.float32) * scale))


def _orders(parts: PackParts, rng: Random) -> None:
    value = rng.choice((0, 1, 500, 65535))

    def change(array: np.ndarray[Any, Any]) -> None:
        block, plane = rng.randrange(array.shape[0]), rng.randrange(array.shape[1])
        array[block, plane] = value

    parts.change("index.orders", change)


def _outlier_lengths(parts: PackParts, rng: Random) -> None:
    value = rng.choice((0, 1, 2**32 - 1, 2**32 - 4, 1 << 20))
    parts.change(
        "index.outlier_bytes", lambda a: a.reshape(-1).__setitem__(rng.randrange(a.size), value)
    )


def _index_shape(parts: PackParts, rng: Random) -> None:
    name = rng.choice([name for name in parts.residents if name.startswith("index.")])
    tensor = parts.residents[name]
    others = {tensor.shape[::-1], (1, *tensor.shape)} - {tensor.shape}
    parts.residents[name] = tensor._replace(shape=rng.choice(sorted(others)))


def _words_damage(parts: PackParts, rng: Random) -> None:
    """Scales of all rows that are no finite numbers, their checksums right."""
    words = parts.manifest["words"]
    rows, size = words["rows"], words["row_bytes"]
    table = np.frombuffer(parts.words, np.uint8)[: rows * size].reshape(rows, size).copy()
    start = words["hidden"] // 2
    bits = rng.choice((0x7C00, 0xFC00, 0x7E00, 0x7C01))
    table[:, start : size - 4].view("<u2")[:] = bits
    for number, row in enumerate(table):
        row[-4:] = np.frombuffer(row_checksum(number, row[:-4]).to_bytes(4, "little"), np.uint8)
    parts.words = table.tobytes() + parts.words[rows * size :]


def _row_checksums(parts: PackParts, rng: Random) -> None:
    data = bytearray(parts.words)
    for at in range(len(data)):
        data[at] ^= rng.choice((0, 1, 128))
    parts.words = bytes(data)


def _pieces(parts: PackParts) -> Iterator[tuple[str, int, int, tuple[int, int, int]]]:
    """Block, offset, length and place in the checksums of each slice's outlier list."""
    lists = parts.residents["index.outlier_bytes"].array
    shards = {}
    for kind in parts.manifest["kinds"]:
        weights = sum(int(np.prod(item["shape"])) for item in kind["operands"])
        shards[kind["name"]] = weights * parts.manifest["ladder"][-1] // 8
    for block, name in enumerate(parts.blocks):
        kind = parts.manifest["kinds"][block % len(parts.manifest["kinds"])]
        at = first = 0
        for count in kind["groups"]:
            at += -at % 4096
            for number in range(first, first + count):
                yield name, at, int(lists[block, number]), (block, 0, number)
                at += int(lists[block, number])
            at += count * shards[kind["name"]]
            first += count


def _outlier_lists(parts: PackParts, rng: Random) -> None:
    """Lists of outliers that lead a decoder astray, their checksums right."""
    checksums = parts.residents["index.checksums"].array
    mode = rng.randrange(3)
    for name, at, length, place in list(_pieces(parts)):
        data = bytearray(parts.blocks[name])
        if mode == 0:
            made = b"\xff" * length
        elif mode == 1:
            made = (length * 5).to_bytes(4, "little") + rng.randbytes(length - 4)
        else:
            made = rng.randbytes(length)
        data[at : at + length] = made
        parts.blocks[name] = bytes(data)
        checksums[place] = zlib.crc32(made)
    parts.residents["index.checksums"] = Tensor.of(checksums)


def _piece_checksums(parts: PackParts, rng: Random) -> None:
    value = rng.randrange(1 << 32)
    parts.change("index.checksums", lambda array: array.fill(value))


WEIGHTS: Mapping[str, Kind] = {
    "gains that cannot be": Kind(REFUSED, _gains),
    "gains of other values": Kind(EITHER, _other_gains),
    "orders": Kind(REFUSED, _orders),
    "lengths of outlier lists": Kind(REFUSED, _outlier_lengths),
    "shapes of the index": Kind(REFUSED, _index_shape),
    "word rows not finite": Kind(REFUSED, _words_damage),
    "word rows damaged": Kind(REFUSED, _row_checksums),
    "outlier lists": Kind(REFUSED, _outlier_lists),
    "checksums of pieces": Kind(REFUSED, _piece_checksums),
}
"""By name."""
