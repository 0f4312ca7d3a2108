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

from sti.errors import PackCorruptError, PackFormatError, PartError
from sti.graphs.check import CheckedGraphs
from sti.graphs.interfaces import FORMS, unfed
from sti.model.manifest import Manifest, SliceGroup
from sti.model.part import Part
from sti.pack.header import (
    DTYPES,
    WORDS,
    check_blocks,
    pack_id_of,
    read_header,
    resident_place,
)
from sti.pack.index import INDEX, read_index
from sti.pack.pack_file import PackFile
from sti.pack.parts_check import check_parts
from sti.pack.safetensors_table import TensorInfo, TensorTable
from sti.storage.digest import sha256
from sti.storage.watched_reader import READ_TIMEOUT_S


class PackReader:
    """An open pack, with one descriptor for all reads. Safe to share between threads, but for
    ``check_unchanged`` and ``close``.

    The file may be a part of a pack. Its manifest tells of the whole pack, so that steps of plans
    can be checked; what is asked for and lies elsewhere raises ``PartError``.

    Attributes:
        path: the name it was opened by.
        file_bytes: its size.
        manifest: what the pack says about itself.
        pack_id: names the pack, its ranking included; plans and profiles refer to it. Of a part it
            names the file: plans refer to ``part.pack_id``.
    """

    def __init__(
        self, file: PackFile, text: str, table: TensorTable, manifest: Manifest, region: memoryview
    ) -> None:
        """Used by ``open`` and by ``sti.pack.verify``, with parts that belong together."""
        self.path = file.path
        self.file_bytes = table.end
        self.pack_id = pack_id_of(text)
        self._words = table.tensors[WORDS].offset
        self._file = file
        self._table = table._replace(metadata={})  # the manifest's text is no longer needed
        self._region: memoryview | None = region
        self._start = self._words - manifest.resident.length
        where = str(file.path)
        self.manifest = manifest
        groups = read_index(manifest, self.resident, where=where)
        self.manifest = manifest._replace(groups=groups)
        check_blocks(table, self.manifest, where)
        self._graphs = CheckedGraphs(self, where=where)

    @classmethod
    def open_whole(cls, path: Path | str, *, timeout_s: float = READ_TIMEOUT_S) -> PackReader:
        """As ``open``, for what needs all of a pack.

        Raises:
            PartError: it is a part of one.
            As ``open``.
        """
        reader = cls.open(path, timeout_s=timeout_s)
        try:
            reader.check_whole()
        except BaseException:
            reader.close()
            raise
        return reader

    @classmethod
    def open(cls, path: Path | str, *, timeout_s: float = READ_TIMEOUT_S) -> PackReader:
        """Read and check header and resident region, of a pack or of a part; the file stays open.

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

    @property
    def part(self) -> Part | None:
        """Of which pack the file is a part; None for a whole pack."""
        return self.manifest.part

    @property
    def content(self) -> str:
        """The SHA-256 of what the whole pack holds, as the header states it: equal for a pack, its
        parts, and what was ranked again.
        """
        return self.manifest.sha256.content if self.part is None else self.part.parent

    def holds(self, layer: int) -> bool:
        """Whether blocks and residents of a layer are in the file."""
        return layer in self.manifest.held_layers

    def check_whole(self) -> None:
        """Refuse a part of a pack, for what needs all of it.

        Raises:
            PartError: says of which pack, and what to do.
        """
        if self.part is not None:
            raise PartError(
                f"{self.path}: is a part ({self.part.words}) of pack {self.part.pack_id}; open the "
                "whole pack, or serve it with `sti worker`"
            )

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
            PartError: this part of a pack has none of this name.
        """
        if not self.has_resident(name):
            if self.part is not None and name not in INDEX:
                raise self._elsewhere(f"resident tensor {name!r:.80}")
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
            PartError: what it is fed is not in this part of a pack.
        """
        if name in unfed(self.manifest):
            raise self._elsewhere(f"what graph {name!r} is fed")
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
        if place is None or name == WORDS:  # which has no bytes in some parts
            return False
        return place.offset + place.length <= self._words

    @property
    def embeddings_offset(self) -> int:
        """Where the first token embedding starts in the file.

        Raises:
            PartError: this part of a pack has none, as it has not the first layer.
        """
        if not self.manifest.holds_words:
            raise self._elsewhere("token embeddings")
        return self._words

    def group_offset(self, group: SliceGroup) -> int:
        """Where a slice group of the manifest starts in the file.

        Raises:
            PartError: its layer is not in this part of a pack.
        """
        place = self._table.tensors.get(group.tensor)
        if place is None:
            raise self._elsewhere(f"layer {group.layer}")
        return place.offset + group.start

    def _elsewhere(self, what: str) -> PartError:
        """What is raised where a part is asked for what it does not hold."""
        assert self.part is not None, "a whole pack was checked to hold everything"
        return PartError(
            f"{self.path}: is a part ({self.part.words}) of pack {self.part.pack_id}, without "
            f"{what}; use a part that has it, or the whole pack"
        )

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
