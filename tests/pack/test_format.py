"""``FORMAT.md`` is enough: a reader written from it alone, in plain Python, decodes a pack.

Uses nothing of ``sti`` but to compare the result.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.codec.codebook import Codebook
from sti.codec.decoder import Decoder
from sti.pack.embedding_table import decode_rows
from sti.pack.pack_reader import PackReader
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.paths import ROOT

# More than 65,536 weights a shard, so that outlier lists have two segments.
SHAPE = Shape(layers=1, hidden=128, heads=2, inner=768)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("format")
    write_checkpoint(place / "checkpoint", shape=SHAPE)
    build(place / "checkpoint", place / "pack", BuildOptions(ladder=(2, 3, 4, 7, 8)))
    return place / "pack"


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

    def word_row(self, row: int) -> list[float]:
        words = self.manifest["words"]
        half, group = words["hidden"] // 2, words["group"]
        raw = self.tensor("words")[row * words["row_bytes"] : (row + 1) * words["row_bytes"]]
        codes = [byte & 15 for byte in raw[:half]] + [byte >> 4 for byte in raw[:half]]
        scales = struct.unpack(f"<{words['hidden'] // group}e", raw[half:])
        return [(code - 8) * scales[at // group] for at, code in enumerate(codes)]

    def shard(self, block: dict[str, Any], slice_: int, planes: int) -> list[int]:
        data = self.tensor(f"block.{block['layer']}.{block['kind']}")
        count = block["shard_weights"]
        start = sum(block["outlier_bytes"])
        codes = [0] * count
        lower = 0
        for plane in block["planes"][:planes]:
            size = plane["shard_bytes"]
            place = plane["order"].index(slice_)
            piece = data[start + place * size : start + (place + 1) * size]
            assert zlib.crc32(piece) == plane["checksums"][place]
            width = plane["bits"] - lower
            assert size == count * width // 8
            codes = [
                code << width | bits
                for code, bits in zip(codes, plane_bits(piece, width, count), strict=True)
            ]
            start += size * self.manifest["dimensions"]["slices"]
            lower = plane["bits"]
        values = self.manifest["book"]["values"][str(lower)]
        found = [values[code] for code in codes]
        at = sum(block["outlier_bytes"][:slice_])
        record = data[at : at + block["outlier_bytes"][slice_]]
        assert zlib.crc32(record) == block["outlier_checksums"][slice_]
        for position, value in outliers(record, count):
            found[position] = value
        return found


def plane_bits(piece: bytes, width: int, count: int) -> list[int]:
    """The bits a plane adds to each weight's code."""
    found = [0] * count
    at = 0
    for _ in range(width // 2):
        for weight in range(count):
            two = piece[at + weight // 4] >> (2 * (weight % 4)) & 3
            found[weight] = found[weight] << 2 | two
        at += count // 4
    if width % 2:
        for byte in range(count // 8):
            for bit in range(4):
                low, high = 4 * byte + bit, 4 * (byte + count // 8) + bit
                found[low] = found[low] << 1 | piece[at + byte] >> bit & 1
                found[high] = found[high] << 1 | piece[at + byte] >> (4 + bit) & 1
    return found


def outliers(record: bytes, count: int) -> list[tuple[int, int]]:
    """Positions in the shard and int8 values."""
    segments = -(-count // 65536)
    counts = struct.unpack_from(f"<{segments}I", record, 0)
    total = sum(counts)
    positions = struct.unpack_from(f"<{total}H", record, 4 * segments)
    values = struct.unpack_from(f"<{total}b", record, 4 * segments + 2 * total)
    end = 4 * segments + 3 * total
    assert len(record) == -(-end // 4) * 4
    assert not any(record[end:])
    owners = [segment for segment, number in enumerate(counts) for _ in range(number)]
    return [
        (segment * 65536 + position, value)
        for segment, position, value in zip(owners, positions, values, strict=True)
    ]


def test_a_reader_written_from_the_specification_decodes_a_shard_at_every_fidelity(
    pack: Path,
) -> None:
    mini = MiniReader(pack.read_bytes())
    with PackReader.open(pack) as reader:
        assert mini.identity == reader.pack_id
        decoder = Decoder(Codebook.from_json(reader.manifest.codebook))
        block = reader.manifest.blocks[1]
        described = mini.manifest["blocks"][1]
        assert described["shard_weights"] > 65536
        data = np.frombuffer(mini.tensor(block.tensor), np.uint8)
        slice_ = 1
        for planes in range(1, 6):
            found = mini.shard(described, slice_, planes)
            pieces, start = [], sum(block.outlier_bytes)
            for plane in block.planes[:planes]:
                at = start + plane.order.index(slice_) * plane.shard_bytes
                pieces.append(data[at : at + plane.shard_bytes])
                start += 2 * plane.shard_bytes
            record = data[block.outlier_bytes[0] : sum(block.outlier_bytes)]
            out = np.empty(block.shard_weights, np.int8)
            decoder.decode(pieces, record, out)
            np.testing.assert_array_equal(found, out)
        assert len(set(found)) > 100


def test_it_reads_words_and_residents(pack: Path) -> None:
    mini = MiniReader(pack.read_bytes())
    with PackReader.open(pack) as reader:
        words = reader.manifest.embeddings
        raw = np.frombuffer(mini.tensor("words"), np.uint8)[: 3 * words.row_bytes]
        out = np.empty((3, words.hidden), np.float32)
        decode_rows(raw.reshape(3, -1), words, out)
        for row in range(3):
            np.testing.assert_array_equal(np.array(mini.word_row(row), np.float32), out[row])
        resident = mini.manifest["resident"]
        begin = mini.table[resident["first"]]["data_offsets"][0]
        region = mini.data[mini.base + begin : mini.base + begin + resident["length"]]
        assert zlib.crc32(region) == resident["checksum"]
        assert mini.table["words"]["data_offsets"][0] == resident["length"]
        gamma = np.frombuffer(mini.tensor("embed.gamma"), "<f4")
        np.testing.assert_array_equal(gamma, reader.resident("embed.gamma"))


def test_the_specification_names_every_field_of_the_manifest(pack: Path) -> None:
    text = (ROOT / "FORMAT.md").read_text()
    manifest = MiniReader(pack.read_bytes()).manifest

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
