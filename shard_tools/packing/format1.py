"""Reading packs of format 1, as they were written before slice groups: for ``sti-shard upgrade``.

In: the path of such a pack. Out: its manifest as JSON, its tensors, and its shards as codes and
outliers, every byte of them compared with its checksum. The run time reads format 2 only. Format 1
had checksums and gains in the manifest, all slices of a block in one run of planes, and other
places for the bits of a plane (``shard_tools.packing.format1_bits``).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.packing.format1_bits import OldShard, add_plane, read_outliers
from sti.errors import InputError, PackCorruptError, PackFormatError
from sti.json_fields import JsonFields
from sti.model.manifest import FORMAT_VERSION
from sti.pack.header import DTYPES, PAD, WORDS, pack_id_of, padded, read_frame
from sti.pack.pack_file import PackFile
from sti.storage.json_input import JsonLimits, parse_json

FORMAT = 1
_HEADER_LIMITS = JsonLimits(1 << 22, 1 << 16, 8)
_LIMITS = JsonLimits(1 << 22, 1 << 19, 16)
"""Larger than today's: what is said of each shard is in the manifest."""
_COPY_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class OldPlane:
    """One plane of a block."""

    bits: int
    shard_bytes: int
    order: tuple[int, ...]
    checksums: tuple[int, ...]
    """In the order of ``order``."""
    gains: tuple[float, ...]
    """By slice."""


@dataclass(frozen=True, slots=True)
class OldBlock:
    """Where a block's parts lie in its tensor."""

    layer: int
    kind: str
    shard_weights: int
    length: int
    outlier_bytes: tuple[int, ...]
    outlier_checksums: tuple[int, ...]
    planes: tuple[OldPlane, ...]

    @property
    def tensor(self) -> str:
        """Name of its tensor."""
        return f"block.{self.layer}.{self.kind}"


class Format1:
    """An open pack of format 1. A context manager, or call ``close``.

    Attributes:
        path: the file.
        pack_id: the pack's identity.
        fields: its manifest, parsed but unchecked.
        blocks: checked; in the order of the file.

    Raises:
        InputError: the pack is of the format that this release writes.
        PackFormatError: not a pack, or malformed.
        PackCorruptError: truncated, or header or residents do not match their checksums.
        PackError, StorageError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = PackFile(path)
        try:
            text, self._table, start = read_frame(self._file, _HEADER_LIMITS)
            self.pack_id = pack_id_of(text)
            self.fields = fields = _manifest(text, path)
            self.blocks = tuple(_block(item) for item in fields.objects("blocks"))
            self._words = fields.object("words")
            self._start = start
            self._check(fields)
            resident = fields.object("resident")
            self._region = self._file.read(start, resident.integer("length"))
            if zlib.crc32(self._region) != resident.integer("checksum"):
                raise self._damaged("the resident tensors")
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def __enter__(self) -> Format1:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def residents(self) -> dict[str, NDArray[Any]]:
        """The resident tensors, but for the padding, in the order of the file; read-only views.

        Raises:
            PackFormatError: a tensor is of a type that packs do not have.
        """
        found = {}
        for name, place in self._table.tensors.items():
            if name == WORDS:
                break
            if place.dtype not in DTYPES:
                raise PackFormatError(
                    f"{self.path}: tensor {name!r} is of type {place.dtype}, which packs do not "
                    "have; fetch the pack again"
                )
            if name != PAD:
                start = place.offset - self._start
                found[name] = np.ndarray(place.shape, DTYPES[place.dtype], self._region, start)
        return found

    def word_rows(self) -> Iterator[NDArray[np.uint8]]:
        """The embedding table in chunks of whole rows, ``[n, row_bytes]``.

        Raises:
            PackCorruptError: when all is read, if it does not match the checksum.
        """
        rows, width = self._words.integer("rows"), self._words.integer("row_bytes")
        each, crc = max(1, _COPY_BYTES // width), 0
        for row in range(0, rows, each):
            size = min(each, rows - row) * width
            data = self._file.read(self._table.tensors[WORDS].offset + row * width, size)
            crc = zlib.crc32(data, crc)
            yield np.frombuffer(data, np.uint8).reshape(-1, width)
        if crc != self._words.integer("checksum"):
            raise self._damaged("the embedding table")

    def shards(self, block: OldBlock) -> list[OldShard]:
        """The shards of a block, by slice.

        Raises:
            PackCorruptError: a part does not match its checksum; names it.
        """
        raw = self._file.read(self._table.tensors[block.tensor].offset, block.length)
        data = np.frombuffer(raw, np.uint8)
        tag = f"layer {block.layer} {block.kind}"
        codes = [np.zeros(block.shard_weights, np.uint8) for _ in block.outlier_bytes]
        lists, start = [], 0
        for number, length in enumerate(block.outlier_bytes):
            lists.append(data[start : start + length])
            if zlib.crc32(lists[-1]) != block.outlier_checksums[number]:
                raise self._damaged(f"{tag}, slice {number}, outlier list")
            start += length
        lower = 0
        for plane in block.planes:
            for number, checksum in zip(plane.order, plane.checksums, strict=True):
                piece = data[start : start + plane.shard_bytes]
                if zlib.crc32(piece) != checksum:
                    raise self._damaged(f"{tag}, slice {number}, plane of {plane.bits} bits")
                add_plane(codes[number], piece, plane.bits - lower)
                start += plane.shard_bytes
            lower = plane.bits
        return [
            OldShard(found, *self._outliers(listed, found.size, tag))
            for found, listed in zip(codes, lists, strict=True)
        ]

    def _outliers(
        self, listed: NDArray[np.uint8], weights: int, tag: str
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        try:
            return read_outliers(listed, weights)
        except ValueError as error:
            raise PackFormatError(
                f"{self.path}: {tag}: an outlier list {error}; fetch the pack again"
            ) from error

    def _check(self, fields: JsonFields) -> None:
        """Refuse blocks that contradict themselves, the ladder or the tensors."""
        ladder, slices = fields.integers("ladder"), fields.object("dimensions").integer("slices")
        words = self._words
        size = words.integer("rows", least=1) * words.integer("row_bytes", least=1)
        self._stored(WORDS, size)
        length = fields.object("resident").integer("length")
        if self._start + length != self._table.tensors[WORDS].offset:
            raise PackFormatError(
                f"{self.path}: the resident region does not fit; fetch the pack again"
            )
        for block in self.blocks:
            self._stored(block.tensor, block.length)
            length, lower = sum(block.outlier_bytes), 0
            good = tuple(plane.bits for plane in block.planes) == ladder
            good = good and len(block.outlier_bytes) == len(block.outlier_checksums) == slices
            good = good and block.shard_weights % 8 == 0
            for plane in block.planes:
                bits, lower = plane.bits - lower, plane.bits
                good = good and plane.shard_bytes * 8 == block.shard_weights * bits
                good = good and sorted(plane.order) == list(range(slices))
                good = good and len(plane.checksums) == len(plane.gains) == slices
                length += plane.shard_bytes * slices
            if not good or length != block.length:
                raise PackFormatError(
                    f"{self.path}: layer {block.layer} {block.kind} contradicts itself; fetch the "
                    "pack again"
                )

    def _stored(self, name: str, length: int) -> None:
        place = self._table.tensors.get(name)
        if place is None or place.dtype != "U8" or place.length != padded(length):
            raise PackFormatError(
                f"{self.path}: tensor {name!r} is missing or has the wrong length; fetch the pack "
                "again"
            )

    def _damaged(self, part: str) -> PackCorruptError:
        return PackCorruptError(
            f"{self.path}: {part}: checksum does not match; the pack is damaged, fetch it again"
        )


def _manifest(text: str, path: Path) -> JsonFields:
    """The manifest of a pack of format 1."""
    try:
        parsed = parse_json(text, _LIMITS)
    except ValueError as error:
        raise PackFormatError(f"{path}: the manifest is not valid JSON: {error}") from error
    fields = JsonFields(parsed, where=f"{path}: manifest", error=PackFormatError)
    version = fields.integer("format")
    if version == FORMAT_VERSION:
        raise InputError(f"{path}: is of format {version} already; there is nothing to upgrade")
    if version != FORMAT:
        raise PackFormatError(
            f"{path}: pack format {version} is unknown to this release, which upgrades format "
            f"{FORMAT}; upgrade sti"
        )
    return fields


def _block(fields: JsonFields) -> OldBlock:
    return OldBlock(
        layer=fields.integer("layer"),
        kind=fields.text("kind"),
        shard_weights=fields.integer("shard_weights", least=8),
        length=fields.integer("length", least=1),
        outlier_bytes=fields.integers("outlier_bytes"),
        outlier_checksums=fields.integers("outlier_checksums"),
        planes=tuple(
            OldPlane(
                bits=item.integer("bits", least=1),
                shard_bytes=item.integer("shard_bytes", least=1),
                order=item.integers("order"),
                checksums=item.integers("checksums"),
                gains=item.numbers("gains"),
            )
            for item in fields.objects("planes")
        ),
    )
