"""Opening packs: what a run needs from the file before the first block is streamed.

In: the path of a pack. Out: its manifest, its resident tensors, and where token embeddings and
blocks start. Opening takes two or three reads: the header, then the resident region as one span
with one checksum. Blocks and token embeddings are not read here; ``sti.pack.verify`` checks all of
them. Knows nothing of graphs, plans or of what tensors mean. ``FORMAT.md`` specifies every byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackCorruptError, PackFormatError
from sti.model.manifest import Manifest
from sti.pack.header import (
    DTYPES,
    WORDS,
    open_file,
    pack_id_of,
    read_exactly,
    read_header,
    resident_place,
)
from sti.pack.safetensors_table import (
    TensorInfo,
    TensorTable,
)
from sti.storage.file_reader import no_read_ahead


class PackReader:
    """An open pack. Immutable except for ``close``; safe to share between threads.

    Attributes:
        path: the file.
        file_bytes: its size.
        manifest: what the pack says about itself.
        pack_id: names the pack by its content; plans and profiles refer to it.
        embeddings_offset: where the first token embedding starts in the file.
    """

    def __init__(
        self, path: Path, text: str, table: TensorTable, manifest: Manifest, region: bytes
    ) -> None:
        """Used by ``open`` only, with parts that were checked and belong together."""
        self.path = path
        self.file_bytes = table.end
        self.manifest = manifest
        self.pack_id = pack_id_of(text)
        self.embeddings_offset = table.tensors[WORDS].offset
        self._table = table._replace(metadata={})  # the manifest's text is no longer needed
        self._region: bytes | None = region
        self._start = self.embeddings_offset - manifest.resident.length

    @classmethod
    def open(cls, path: Path | str) -> PackReader:
        """Read and check header and resident region; the file is closed again.

        Raises:
            PackFormatError: not a pack, an unknown format version, or a malformed manifest.
            PackCorruptError: truncated, or a checksum that does not match.
            PackError: there is no such file, or it may not be read.
            StorageError: reading failed.
        """
        path = Path(path)
        with open_file(path) as stream:
            no_read_ahead(stream.fileno())
            text, table, manifest = read_header(stream, path)
            place = resident_place(table, manifest)
            region = read_exactly(stream, path, place.offset, place.length)
        if zlib.crc32(region) != manifest.resident.checksum:
            raise PackCorruptError(
                f"{path}: the resident tensors (bytes {place.offset} to "
                f"{place.offset + place.length}) do not match their checksum; fetch the pack again"
            )
        return cls(path, text, table, manifest, region)

    def resident(self, name: str) -> NDArray[Any]:
        """A resident tensor as a read-only view (int64, float32 or uint8).

        Raises:
            PackFormatError: there is none of this name, or the pack was closed.
        """
        if not self.has_resident(name):
            raise PackFormatError(
                f"{self.path}: resident tensor {name!r} is missing; rebuild the pack"
            )
        place = self._table.tensors[name]
        if self._region is None:
            raise PackFormatError(f"{self.path}: closed; open the pack again")
        start = place.offset - self._start
        return np.ndarray(place.shape, DTYPES[place.dtype], self._region, start)

    def has_resident(self, name: str) -> bool:
        """Whether there is a resident tensor of this name."""
        place = self._table.tensors.get(name)
        return place is not None and place.offset + place.length <= self.embeddings_offset

    def block_offset(self, block: str) -> int:
        """Where a block's tensor (``Block.tensor``) starts in the file.

        Raises:
            PackFormatError: there is no such block.
        """
        place = self._table.tensors.get(block)
        if place is None or place.offset <= self.embeddings_offset:
            raise PackFormatError(f"{self.path}: block {block!r} is missing; rebuild the pack")
        return place.offset

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the file, in the order in which it stores them."""
        return self._table.tensors

    def close(self) -> None:
        """Release the resident region; views already returned stay valid. Idempotent."""
        self._region = None

    def __enter__(self) -> PackReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
