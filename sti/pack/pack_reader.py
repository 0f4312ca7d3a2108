"""Opening packs: what a run needs from the file before weights are streamed.

In: the path of a pack. Out: its manifest, its resident tensors, where token embeddings and slice
groups start, and the open file that they are read from. Opening takes two or three reads: the
header, then the resident region as one span with one checksum. Slices and token embeddings are not
read here; ``sti.pack.verify`` checks all of them. Knows nothing of graphs, plans or of what tensors
mean. ``FORMAT.md`` specifies every byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackCorruptError, PackFormatError
from sti.graphs.check import CheckedGraphs
from sti.graphs.interfaces import FORMS
from sti.model.manifest import Manifest, SliceGroup
from sti.pack.header import (
    DTYPES,
    WORDS,
    check_blocks,
    pack_id_of,
    read_header,
    resident_place,
)
from sti.pack.index import read_index
from sti.pack.pack_file import PackFile
from sti.pack.parts_check import check_parts
from sti.pack.safetensors_table import TensorInfo, TensorTable
from sti.storage.digest import sha256
from sti.storage.watched_reader import READ_TIMEOUT_S


class PackReader:
    """An open pack, with one descriptor for all reads. Safe to share between threads, but for
    ``check_unchanged`` and ``close``.

    Attributes:
        path: the name it was opened by.
        file_bytes: its size.
        manifest: what the pack says about itself.
        pack_id: names the pack, its ranking included; plans and profiles refer to it.
        embeddings_offset: where the first token embedding starts in the file.
    """

    def __init__(
        self, file: PackFile, text: str, table: TensorTable, manifest: Manifest, region: memoryview
    ) -> None:
        """Used by ``open`` and by ``sti.pack.verify``, with parts that belong together."""
        self.path = file.path
        self.file_bytes = table.end
        self.pack_id = pack_id_of(text)
        self.embeddings_offset = table.tensors[WORDS].offset
        self._file = file
        self._table = table._replace(metadata={})  # the manifest's text is no longer needed
        self._region: memoryview | None = region
        self._start = self.embeddings_offset - manifest.resident.length
        where = str(file.path)
        groups = read_index(manifest, self.resident, where=where)
        self.manifest = manifest._replace(groups=groups)
        check_blocks(table, self.manifest, where)
        self._graphs = CheckedGraphs(self, where=where)

    @classmethod
    def open(cls, path: Path | str, *, timeout_s: float = READ_TIMEOUT_S) -> PackReader:
        """Read and check header and resident region; the file stays open.

        Args:
            timeout_s: as of ``PackFile``.

        Raises:
            PackFormatError: not a pack, an unknown format version, or a malformed manifest.
            PackCorruptError: truncated, or a checksum that does not match.
            PackError: there is no such file, or it may not be read.
            StorageError: reading failed.
        """
        file = PackFile(Path(path), timeout_s=timeout_s)
        try:
            text, table, manifest = read_header(file)
            place = resident_place(table, manifest)
            region = file.read_view(place.offset, place.length)
            if zlib.crc32(region) != manifest.resident.checksum:
                raise PackCorruptError(
                    f"{path}: the resident tensors (bytes {place.offset} to "
                    f"{place.offset + place.length}) do not match their checksum; fetch the pack "
                    "again"
                )
            reader = cls(file, text, table, manifest, region)
            reader.check_parts()
            return reader
        except BaseException:
            file.close()
            raise

    def check_parts(self) -> None:
        """Refuse graphs and residents that do not fit one another; ``open`` has done so.

        Raises:
            PackFormatError: names the tensor or member.
        """
        region, start = self._region or memoryview(b""), self._start

        def part(offset: int, length: int) -> memoryview:
            return region[offset - start : offset - start + length]

        check_parts(self.manifest, self._table.tensors, part, where=str(self.path))

    def resident(self, name: str) -> NDArray[Any]:
        """A resident tensor as a read-only view (of a type of ``header.DTYPES``).

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

    def check_graphs(self, forms: Collection[str] = tuple(FORMS), *, masked: bool = True) -> None:
        """Check the graphs; each is checked once, here or when it is asked for.

        Args:
            forms: of the weights that graphs are for; those for others only need to be there.
            masked: False: those for groups with padding only need to be there as well.

        Raises:
            PackFormatError: one is missing, or not what graphs of packs may be.
        """
        self._graphs.check(forms, masked=masked)

    def graph(self, name: str) -> bytes:
        """A serialized ONNX graph that does no more than graphs of packs do.

        Raises:
            PackFormatError: as ``check_graphs``, of this one.
        """
        return self._graphs.graph(name)

    @cached_property
    def graphs_digest(self) -> str:
        """Names the graphs but the head, whose size depends on the labels, its cost hardly."""
        digest = sha256()
        for name, tensor in sorted(self.manifest.graphs.items()):
            if name != "head":
                digest.update(name.encode() + self.resident(tensor).tobytes())
        return digest.hexdigest()[:16]

    def has_resident(self, name: str) -> bool:
        """Whether there is a resident tensor of this name."""
        place = self._table.tensors.get(name)
        return place is not None and place.offset + place.length <= self.embeddings_offset

    def group_offset(self, group: SliceGroup) -> int:
        """Where a slice group of the manifest starts in the file."""
        return self._table.tensors[group.tensor].offset + group.start

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the file, in the order in which it stores them."""
        return self._table.tensors

    @property
    def descriptor(self) -> int:
        """The open file's descriptor; it stays the reader's.

        Raises:
            PackFormatError: the pack was closed.
        """
        return self._file.descriptor

    @property
    def device(self) -> int:
        """The storage device that the open file is on, as ``os.stat`` numbers it."""
        return self._file.opened.device

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the open file, whatever its name stands for by now.

        Raises:
            PackCorruptError: the file ends before that.
            PackFormatError: the pack was closed.
            StorageError: reading failed.
        """
        return self._file.read(offset, length)

    def check_unchanged(self) -> str | None:
        """Notice a file that was changed, replaced or deleted; takes microseconds.

        Returns:
            What to tell, once for each change, where the file was replaced or deleted; what was
            opened is still read.

        Raises:
            PackCorruptError: the open file was changed.
            PackFormatError: the pack was closed.
            StorageError: the system does not tell.
        """
        return self._file.check_unchanged()

    def close(self) -> None:
        """Close the file and release the resident region; views already returned stay valid.

        Idempotent.
        """
        self._region = None
        self._file.close()

    def __enter__(self) -> PackReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
