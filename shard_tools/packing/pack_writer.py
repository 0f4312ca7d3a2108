"""Writing a pack: the header, the resident region, the embedding table, then block after block.

In: a draft of the manifest, resident tensors, encoded token embeddings, encoded blocks. Out: a file
laid out as ``FORMAT.md`` says, complete or not there at all. Blocks go to the file as they are
made, so the header, which holds their checksums, is written last, into space set aside for the
longest it can become. Knows nothing of how anything was encoded.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sti.errors import InputError, StorageError
from sti.model.manifest import ALIGNMENT, Block, Manifest, Plane, ResidentRegion
from sti.pack.header import CHECKSUM_DIGITS, HEADER_START, WORDS, header_checksum, padded
from sti.pack.safetensors_table import LENGTH_BYTES
from sti.storage.atomic_file import remove_abandoned_drafts, replacing

PAD = "resident.pad"
"""Name of the tensor that fills the resident region up to the alignment."""

_DTYPES = {
    np.dtype("<i8"): "I64",
    np.dtype("<f4"): "F32",
    np.dtype("<f2"): "F16",
    np.dtype("u1"): "U8",
}
_LONGEST_CHECKSUM = 2**32 - 1
_LONGEST_GAIN = 1.234e15
"""No float of four significant digits has a longer text."""


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A block as it is written to the file."""

    layout: Block
    parts: Sequence[NDArray[np.uint8]]
    """Outlier lists in slice order, then each plane's shards in its order."""


@contextmanager
def replacing_pack(path: Path) -> Iterator[BinaryIO]:
    """A new pack that takes the place of ``path`` when the body succeeds, and vanishes otherwise.

    Drafts of builds that were killed are removed first.

    Raises:
        InputError: ``path`` cannot be a file.
        StorageError: writing failed, e.g. because the disk is full.
    """
    if path.is_dir():
        raise InputError(
            f"{path}: is a directory; name the pack, e.g. {path / 'model.safetensors'}"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory; create it first")
    remove_abandoned_drafts(path)
    try:
        with replacing(path, durable=True) as stream:
            yield stream
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was left behind"
        ) from error


class PackWriter:
    """Writes one pack into an empty file. Call ``words``, then ``block`` for each, then ``finish``.

    Args:
        stream: seekable, positioned anywhere; owned by the caller.
        draft: the manifest before anything is encoded: its ``blocks`` are made by ``draft_block``;
            checksums of the embedding table and of the residents are not read.
        resident: name to array (int64, float32 or uint8), little endian.
    """

    def __init__(
        self, stream: BinaryIO, draft: Manifest, resident: Mapping[str, NDArray[Any]]
    ) -> None:
        self._stream = stream
        self._places: list[tuple[str, str, tuple[int, ...], int]] = []
        region = self._lay_out(resident)
        words = draft.embeddings.rows * draft.embeddings.row_bytes
        self._words_bytes = words
        self._resident = ResidentRegion(self._places[0][0], len(region), zlib.crc32(region))
        self._place(WORDS, "U8", (padded(words),), padded(words))
        worst = replace(
            draft,
            resident=self._resident,
            embeddings=replace(draft.embeddings, checksum=_LONGEST_CHECKSUM),
        )
        blocks = [(block.tensor, padded(block.length)) for block in draft.blocks]
        header = _header(worst, [*self._places, *((n, "U8", (s,), s) for n, s in blocks)])
        self._start = padded(LENGTH_BYTES + len(header))
        stream.seek(self._start)
        stream.write(region)

    def _lay_out(self, resident: Mapping[str, NDArray[Any]]) -> bytes:
        """The resident region: wide types first, so that each tensor is aligned to its type."""
        named = [(name, np.ascontiguousarray(array)) for name, array in resident.items()]
        named.sort(key=lambda item: -item[1].itemsize)
        parts = [array.tobytes() for _, array in named]
        for name, array in named:
            self._place(name, _DTYPES[array.dtype], array.shape, array.nbytes)
        used = sum(len(part) for part in parts)
        rest = padded(used) - used
        self._place(PAD, "U8", (rest,), rest)
        return b"".join([*parts, bytes(rest)])

    def _place(self, name: str, dtype: str, shape: tuple[int, ...], length: int) -> None:
        self._places.append((name, dtype, shape, length))

    def words(self, rows: Iterable[NDArray[np.uint8]]) -> int:
        """Write the embedding table, given as encoded rows in pieces; returns its CRC-32."""
        crc, done = 0, 0
        for piece in rows:
            data = np.ascontiguousarray(piece).reshape(-1)
            crc = zlib.crc32(data, crc)
            done += data.nbytes
            self._stream.write(data)
        assert done == self._words_bytes, "the embedding table has another size than announced"
        self._stream.write(bytes(padded(done) - done))
        return crc

    def block(self, block: EncodedBlock) -> None:
        """Write the next block, in the order of execution."""
        done = 0
        for part in block.parts:
            self._stream.write(part)
            done += part.nbytes
        assert done == block.layout.length, "a block has another size than its layout says"
        size = padded(done)
        self._stream.write(bytes(size - done))
        self._place(block.layout.tensor, "U8", (size,), size)

    def finish(self, manifest: Manifest) -> Manifest:
        """Write the header.

        Args:
            manifest: the final one; its ``resident`` is replaced by what was written.

        Returns:
            The manifest as written.
        """
        final = replace(manifest, resident=self._resident)
        header = _header(final, self._places)
        space = self._start - LENGTH_BYTES
        assert len(header) <= space, "the header outgrew the space set aside for it"
        header = header.ljust(space)
        start = len(HEADER_START)
        digits = b"%08x" % header_checksum(header)
        self._stream.seek(0)
        self._stream.write(space.to_bytes(LENGTH_BYTES, "little"))
        self._stream.write(header[:start] + digits + header[start + CHECKSUM_DIGITS :])
        return final


def draft_block(
    layer: int, kind: str, *, shard_weights: int, slices: int, plane_bytes: Mapping[int, int]
) -> Block:
    """A block whose entry in the manifest is at least as long as that of the finished one."""
    most = shard_weights * 4 + ALIGNMENT
    planes = tuple(
        Plane(
            bits=bits,
            shard_bytes=size,
            order=tuple(range(slices)),
            checksums=(_LONGEST_CHECKSUM,) * slices,
            gains=(_LONGEST_GAIN,) * slices,
        )
        for bits, size in plane_bytes.items()
    )
    length = slices * (most + sum(plane_bytes.values()))
    checksums = (_LONGEST_CHECKSUM,) * slices
    return Block(layer, kind, shard_weights, length, (most,) * slices, checksums, planes)


def _header(manifest: Manifest, places: Sequence[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The JSON header, its checksum still zeros."""
    metadata = {"format": "sti", "crc32": "0" * CHECKSUM_DIGITS, "sti": manifest.to_json()}
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, dtype, shape, length in places:
        entries[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [end, end + length],
        }
        end += length
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")
