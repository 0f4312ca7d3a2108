"""``FORMAT.md`` is enough: a reader written from it alone, in plain Python, decodes a pack.

Uses nothing of ``sti`` but to compare the result.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.share import share
from sti.codec.word_rows import decode_rows
from sti.pack.pack_reader import PackReader
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.paths import ROOT
from tests.support.stored_weights import shard

# An operand with more than 65,536 weights has two segments of outliers; neither its records nor
# those of the attention all have 1,024 weights. Blocks have two groups.
SHAPE = Shape(layers=2, hidden=136, heads=4, inner=2048)
LADDER = (2, 3, 4, 7, 8)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("format")
    write_checkpoint(place / "checkpoint", shape=SHAPE)
    options = BuildOptions(ladder=LADDER, group_bytes=8192)
    build(place / "checkpoint", place / "pack", options, progress=False)
    return place / "pack"


@pytest.fixture(scope="module", params=[None, 0, 1], ids=["whole", "front", "back"])
def either(pack: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    """The pack, or a part of one of its layers."""
    if request.param is None:
        return pack
    path: Path = tmp_path_factory.mktemp("part") / "part"
    share(pack, path, request.param, request.param)
    return path


class MiniReader:
    """Sections 1 to 3 of FORMAT.md, as directly as can be."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        (length,) = struct.unpack_from("<Q", data, 0)
        header = data[8 : 8 + length]
        start = b'{"__metadata__":{"format":"sti","crc32":"'
        assert (8 + length) % 16384 == 0
        assert header.startswith(start)
        digits = header[len(start) : len(start) + 8]
        zeroed = start + b"00000000" + header[len(start) + 8 :]
        assert int(digits, 16) == zlib.crc32(zeroed)
        self.table: dict[str, Any] = json.loads(header)
        text = self.table.pop("__metadata__")["sti"]
        self.manifest: dict[str, Any] = json.loads(text)
        self.identity = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
        self.base = 8 + length

    def tensor(self, name: str) -> bytes:
        begin, end = self.table[name]["data_offsets"]
        return self.data[self.base + begin : self.base + end]

    def array(self, name: str) -> list[float]:
        """A tensor's numbers, flat."""
        letter = {"U32": "I", "U16": "H", "F32": "f", "I64": "q"}[self.table[name]["dtype"]]
        data = self.tensor(name)
        return list(struct.unpack(f"<{len(data) // struct.calcsize('<' + letter)}{letter}", data))

    def word_row(self, row: int) -> list[float]:
        words = self.manifest["words"]
        half, group = words["hidden"] // 2, words["group"]
        raw = self.tensor("words")[row * words["row_bytes"] : (row + 1) * words["row_bytes"]]
        raw, checksum = raw[:-4], raw[-4:]
        assert struct.pack("<I", zlib.crc32(struct.pack("<I", row) + raw)) == checksum
        codes = [byte & 15 for byte in raw[:half]] + [byte >> 4 for byte in raw[:half]]
        scales = struct.unpack(f"<{words['hidden'] // group}e", raw[half:])
        return [(code - 8) * scales[at // group] for at, code in enumerate(codes)]

    def sizes(self, kind: int) -> list[int]:
        """Weights of each operand in a shard."""
        return [math.prod(item["shape"]) for item in self.manifest["kinds"][kind]["operands"]]

    def pieces(self, layer: int, kind: int) -> list[tuple[bytes, list[bytes]]]:
        """For each slice of a block its outlier list, and its shard in each plane."""
        described = self.manifest["kinds"][kind]
        data = self.tensor(f"block.{layer}.{described['name']}")
        slices, ladder = self.manifest["dimensions"]["slices"], self.manifest["ladder"]
        planes, weights = len(ladder), sum(self.sizes(kind))
        block = layer * len(self.manifest["kinds"]) + kind
        lengths = self.array("index.outlier_bytes")[block * slices : (block + 1) * slices]
        checksums = self.array("index.checksums")[block * (planes + 1) * slices :]
        orders = self.array("index.orders")[block * planes * slices :]
        found: list[tuple[bytes, list[bytes]]] = []
        at = first = 0
        for count in described["groups"]:
            while at % 4096:
                assert data[at] == 0
                at += 1
            part: list[tuple[bytes, list[bytes]]] = []
            for index in range(count):
                length = int(lengths[first + index])
                part.append((data[at : at + length], []))
                assert zlib.crc32(part[-1][0]) == checksums[first + index]
                at += length
            for plane, (lower, bits) in enumerate(zip((0, *ladder), ladder, strict=False)):
                length = weights * (bits - lower) // 8
                order = orders[plane * slices + first : plane * slices + first + count]
                assert sorted(order) == list(range(count))
                for index in map(int, order):
                    piece = data[at : at + length]
                    assert zlib.crc32(piece) == checksums[(plane + 1) * slices + first + index]
                    part[index][1].append(piece)
                    at += length
            found += part
            first += count
        assert first == slices
        assert len(data) == -(-at // 16384) * 16384
        assert not any(data[at:])
        return found

    def shard(self, layer: int, kind: int, slice_: int, planes: int) -> list[int]:
        record, pieces = self.pieces(layer, kind)[slice_]
        sizes, ladder = self.sizes(kind), self.manifest["ladder"]
        codes = [0] * sum(sizes)
        lower = 0
        for piece, bits in zip(pieces[:planes], ladder, strict=False):
            added = plane_bits(piece, bits - lower, sizes)
            codes = [code << (bits - lower) | new for code, new in zip(codes, added, strict=True)]
            lower = bits
        values = self.manifest["book"]["values"][str(lower)]
        found = [values[code] for code in codes]
        for position, value in outliers(record, sizes):
            found[position] = value
        return found

    def content(self) -> str:
        """The hash of section 4."""
        text = b""
        for name in self.table:
            if name == "words":
                break
            if not name.startswith("index.") and name not in ("staircases", "resident.pad"):
                text += name.encode() + b"\0" + self.tensor(name)
        words, last = self.manifest["words"], self.manifest["dimensions"]["layers"] - 1
        part = self.manifest.get("part", {"first": 0, "last": last})
        text += self.tensor("words")[: words["rows"] * words["row_bytes"]]
        assert (part["first"] > 0) == (not self.tensor("words"))
        for layer in range(part["first"], part["last"] + 1):
            for kind in range(len(self.manifest["kinds"])):
                for record, pieces in self.pieces(layer, kind):
                    text += record + b"".join(pieces)
        return hashlib.sha256(text).hexdigest()

    def find(self, word: str) -> int | None:
        """The id of a word, by the hash table of section 2.4."""
        blob = self.tensor("tokenizer.vocab")
        starts, order, buckets = (
            [int(number) for number in self.array(f"tokenizer.{name}")]
            for name in ("starts", "order", "buckets")
        )
        hashed = sum(
            2246822507 * 2654435761**place * byte for place, byte in enumerate(word.encode())
        )
        bits = len(f"{len(order):b}")
        assert len(buckets) == 2**bits + 1
        bucket = hashed % 2**32 >> (32 - bits)
        for number in order[buckets[bucket] : buckets[bucket + 1]]:
            if blob[starts[number] : starts[number + 1] - 1] == word.encode():
                return number
        return None


def records(sizes: list[int]) -> list[int]:
    """Weights of each record of a shard."""
    found = []
    for size in sizes:
        found += [1024] * (size // 1024) + ([size % 1024] if size % 1024 else [])
    return found


def plane_bits(piece: bytes, width: int, sizes: list[int]) -> list[int]:
    """The bits a plane adds to each weight's code."""
    found: list[int] = []
    at = 0
    for count in records(sizes):
        codes = [0] * count
        for bits in [2] * (width // 2) + [1] * (width % 2):
            bytes_ = count * bits // 8
            for place in range(8 // bits):
                for byte in range(bytes_):
                    new = piece[at + byte] >> (place * bits) & ((1 << bits) - 1)
                    weight = byte + place * bytes_
                    codes[weight] = codes[weight] << bits | new
            at += bytes_
        found += codes
    assert at == len(piece)
    return found


def outliers(record: bytes, sizes: list[int]) -> list[tuple[int, int]]:
    """Positions in the shard and int8 values."""
    starts, start = [], 0
    for size in sizes:
        starts += [start + inside for inside in range(0, size, 65536)]
        start += size
    counts = struct.unpack_from(f"<{len(starts)}I", record, 0)
    total = sum(counts)
    positions = struct.unpack_from(f"<{total}H", record, 4 * len(starts))
    values = struct.unpack_from(f"<{total}b", record, 4 * len(starts) + 2 * total)
    end = 4 * len(starts) + 3 * total
    assert len(record) == -(-end // 4) * 4
    assert not any(record[end:])
    owners = [start for start, number in zip(starts, counts, strict=True) for _ in range(number)]
    return [
        (start + position, value)
        for start, position, value in zip(owners, positions, values, strict=True)
    ]


def test_a_reader_written_from_the_specification_decodes_shards_at_every_fidelity(
    pack: Path,
) -> None:
    mini = MiniReader(pack.read_bytes())
    with PackReader.open(pack) as reader:
        assert mini.identity == reader.pack_id
        assert [kind["groups"] for kind in mini.manifest["kinds"]] == [[2, 2], [1] * 4]
        assert max(mini.sizes(1)) > 65536
        for layer, kind, slice_ in ((0, 0, 3), (1, 1, 2)):
            name = mini.manifest["kinds"][kind]["name"]
            for planes in range(1, len(LADDER) + 1):
                found = mini.shard(layer, kind, slice_, planes)
                np.testing.assert_array_equal(found, shard(reader, layer, name, slice_, planes))
            assert len(set(found)) > 100


def test_its_hashes_are_those_of_the_manifest(either: Path) -> None:
    mini = MiniReader(either.read_bytes())
    assert mini.content() == mini.manifest["sha256"]["content"]
    names = ("outlier_bytes", "checksums", "orders", "gains")
    index = b"".join(mini.tensor(f"index.{name}") for name in names)
    assert hashlib.sha256(index).hexdigest() == mini.manifest["sha256"]["index"]


def test_it_finds_words(pack: Path) -> None:
    mini = MiniReader(pack.read_bytes())
    words = mini.tensor("tokenizer.vocab").decode().split("\n")
    assert [mini.find(word) for word in words] == list(range(len(words)))
    assert mini.find("no such word") is None


def test_it_reads_words_and_residents(pack: Path) -> None:
    mini = MiniReader(pack.read_bytes())
    with PackReader.open(pack) as reader:
        words = reader.manifest.embeddings
        raw = np.frombuffer(mini.tensor("words"), np.uint8)[: 3 * words.row_bytes]
        out = np.empty((3, words.hidden), np.float32)
        assert decode_rows(raw.reshape(3, -1), np.arange(3), words.group, out) is None
        for row in range(3):
            np.testing.assert_array_equal(np.array(mini.word_row(row), np.float32), out[row])
        resident = mini.manifest["resident"]
        begin = mini.table[resident["first"]]["data_offsets"][0]
        region = mini.data[mini.base + begin : mini.base + begin + resident["length"]]
        assert zlib.crc32(region) == resident["checksum"]
        assert mini.table["words"]["data_offsets"][0] == resident["length"]
        gamma = np.frombuffer(mini.tensor("embed.gamma"), "<f4")
        np.testing.assert_array_equal(gamma, reader.resident("embed.gamma"))


def test_the_specification_names_every_field_of_the_manifest(either: Path) -> None:
    text = (ROOT / "FORMAT.md").read_text()
    manifest = MiniReader(either.read_bytes()).manifest

    def names(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {name for item in value.values() for name in names(item)}
        if isinstance(value, list):
            return {name for item in value for name in names(item)}
        return set()

    free = {key: manifest.pop(key) for key in ("notes", "graphs", "book")}
    assert free["book"].keys() == {"ladder", "values"}
    missing = {name for name in names(manifest) if f"`{name}`" not in text}
    quoted = {name for name in missing if f'"{name}"' in text}
    assert missing == quoted
