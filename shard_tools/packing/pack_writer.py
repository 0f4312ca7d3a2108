"""Writing a pack: the header, the resident region, the embedding table, then group after group.

In: a draft of the manifest, resident tensors, encoded token embeddings, encoded slice groups. Out:
a file laid out as ``FORMAT.md`` says, complete or not there at all. Groups go to the file as they
are made, so the index, which holds their checksums, and the header are written last, into the
space that was left for them. Knows nothing of how anything was encoded.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray
from sti.errors import InputError, PackFormatError, StorageError
from sti.graphs.check import CheckedGraphs
from sti.model.manifest import (
    ContentHashes,
    Manifest,
    Plane,
    ResidentRegion,
    SliceGroup,
)
from sti.pack.header import (
    CHECKSUM_DIGITS,
    DTYPES,
    HEADER_START,
    PAD,
    STAIRCASES,
    WORDS,
    header_checksum,
    padded,
)
from sti.pack.index import INDEX, group_start, index_arrays, index_hash, read_index
from sti.pack.manifest_check import check_words
from sti.pack.manifest_reader import MOST_HEADER_BYTES
from sti.pack.parts_check import check_parts
from sti.pack.safetensors_table import LENGTH_BYTES, TensorInfo
from sti.pack.tokenizer import checked_tokenizer
from sti.storage.atomic_file import check_room, is_stream, replacing

_TYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST_CHECKSUM = 2**32 - 1
_LONGEST_BLOCK = 10**15
"""Bytes of a block: its place in the header takes no more digits than those of this."""

NO_HASH = "0" * 64
"""Stands for a hash that is not known yet."""

NEW_PACK = "the new pack"
"""Names what is written in errors."""

Place = tuple[str, str, tuple[int, ...], int]
"""A tensor's name, type, shape and bytes."""


def graph_tensor(name: str) -> str:
    """The resident tensor that holds a graph."""
    return f"graph.{name}"


def graph_residents(graphs: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    """Graphs by the names of their tensors."""
    return {graph_tensor(name): np.frombuffer(data, np.uint8) for name, data in graphs.items()}


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """A slice group as it is stored. Everything is given by slice."""

    outliers: Sequence[ByteArray]
    planes: Mapping[int, Sequence[ByteArray]]
    """For each fidelity, ascending, the shards of the plane that raises them to it."""
    orders: Sequence[Sequence[int]]
    """For each plane, the slices in the order in which it stores them."""


def check_output(path: Path, needed_bytes: int = 0, *, apart: Iterable[Path] = ()) -> None:
    """Refuse a path at which no pack can be written, before the work begins.

    Args:
        needed_bytes: of the pack, as far as they are known.
        apart: files that are read and must stay.

    Raises:
        InputError: ``path`` cannot be a file, or is one of ``apart``.
        StorageError: there is too little room.
    """
    if path.is_dir():
        raise InputError(
            f"{path}: is a directory; name the pack, e.g. {path / 'model.safetensors'}"
        )
    if is_stream(path):
        raise InputError(f"{path}: is not a regular file; name another output")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path.parent}: nothing can be written there; name another place")
    for other in apart:
        if path.exists() and other.exists() and path.samefile(other):
            raise InputError(f"{path}: is read for this pack; name another output")
    check_room(path, needed_bytes)


@contextmanager
def replacing_pack(path: Path, needed_bytes: int = 0) -> Iterator[BinaryIO]:
    """A new pack that takes the place of ``path`` when the body succeeds, and vanishes otherwise.

    Drafts of builds that were killed are removed first.

    Args:
        needed_bytes: of the pack, as far as they are known.

    Raises:
        InputError: ``path`` cannot be a file.
        StorageError: writing failed, e.g. because the disk is full.
    """
    check_output(path)
    try:
        with replacing(path, durable=True, needed_bytes=needed_bytes) as stream:
            yield stream
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was left behind"
        ) from error


class PackWriter:
    """Writes one pack into an empty file.

    Call ``words``, then ``group`` for each group in the order of execution, then ``finish``. A part
    of a pack gets the groups of its layers only, and no words without the first layer.

    Args:
        stream: seekable, positioned anywhere; owned by the caller.
        draft: the manifest before anything is encoded: without groups; checksums and hashes are not
            read.
        resident: name to array of one of the types of ``DTYPES``; the index is added to them.

    Raises:
        InputError: the header would be longer than headers may be; nothing was written.
        PackFormatError: a label or another text for people holds control characters; likewise.
    """

    def __init__(
        self, stream: BinaryIO, draft: Manifest, resident: Mapping[str, NDArray[Any]]
    ) -> None:
        check_words(draft, NEW_PACK)
        self._stream = stream
        self._draft = draft
        self._places: list[Place] = []
        self._content = hashlib.sha256()
        self._resident = resident
        self._region = self._lay_out({**index_arrays(draft._replace(groups=())), **resident})
        rows = draft.embeddings.rows if draft.holds_words else 0
        words = rows * draft.embeddings.row_bytes
        self._words_bytes = words
        self._place(WORDS, "U8", (padded(words),), padded(words))
        self._start = padded(LENGTH_BYTES + len(self._longest_header()))
        if self._start - LENGTH_BYTES > MOST_HEADER_BYTES:
            raise InputError(
                f"the header of the pack would have {self._start - LENGTH_BYTES} bytes, more than "
                f"{MOST_HEADER_BYTES}; a model of fewer layers, or shorter notes and labels, fit"
            )
        self._order = [
            (layer, kind.name, number, sum(kind.groups[:number]), count)
            for layer in draft.held_layers
            for kind in draft.kinds
            for number, count in enumerate(kind.groups)
        ]
        self._written: list[SliceGroup] = []
        self._end = 0  # of the last group, inside its block
        stream.seek(self._start + len(self._region))

    def _lay_out(self, resident: Mapping[str, NDArray[Any]]) -> bytearray:
        """The resident region: wide types first, so that each tensor is aligned to its type."""
        named = [(name, np.ascontiguousarray(array)) for name, array in resident.items()]
        named.sort(key=lambda item: -item[1].itemsize)
        region = bytearray()
        for name, array in named:
            data = array.tobytes()
            region += data
            self._place(name, _TYPE_NAMES[array.dtype], array.shape, len(data))
            if name not in (*INDEX, STAIRCASES):
                self._content.update(name.encode("utf-8") + b"\0" + data)
        rest = padded(len(region)) - len(region)
        self._place(PAD, "U8", (rest,), rest)
        return region + bytes(rest)

    def _longest_header(self) -> bytes:
        """A header that is at least as long as the one to come."""
        draft = self._draft
        blocks: list[Place] = [
            (f"block.{layer}.{kind.name}", "U8", (_LONGEST_BLOCK,), _LONGEST_BLOCK)
            for layer in draft.held_layers
            for kind in draft.kinds
        ]
        worst = draft._replace(
            resident=ResidentRegion(self._places[0][0], len(self._region), _LONGEST_CHECKSUM),
            sha256=ContentHashes(NO_HASH, NO_HASH),
        )
        return _header(worst, [*self._places, *blocks])

    def _place(self, name: str, dtype: str, shape: tuple[int, ...], length: int) -> None:
        self._places.append((name, dtype, shape, length))

    def _tensors(self) -> dict[str, TensorInfo]:
        """All tensors, with their places after the header."""
        found, end = {}, 0
        for name, dtype, shape, length in self._places:
            found[name] = TensorInfo(dtype, shape, end, length)
            end += length
        return found

    def words(self, rows: Iterable[NDArray[np.uint8]]) -> None:
        """Write the embedding table, given as encoded rows in chunks."""
        done = 0
        for chunk in rows:
            data = np.ascontiguousarray(chunk).reshape(-1)
            done += data.nbytes
            self._content.update(data)
            self._stream.write(data)
        assert done == self._words_bytes, "the embedding table has another size than announced"
        self._stream.write(bytes(padded(done) - done))

    def group(self, encoded: EncodedGroup) -> SliceGroup:
        """Write the next group; returns its layout, with gains of zero."""
        layer, kind, number, first, count = self._order[len(self._written)]
        assert len(encoded.outliers) == count, "a group has another number of slices than its kind"
        start = group_start(self._end) if number else 0
        self._stream.write(bytes(start - (self._end if number else 0)))
        shards = list(encoded.planes.values())
        for index, outliers in enumerate(encoded.outliers):
            self._content.update(outliers)
            for plane in shards:
                self._content.update(plane[index])
        parts = [
            *encoded.outliers,
            *(plane[i] for plane, order in zip(shards, encoded.orders, strict=True) for i in order),
        ]
        self._stream.writelines(part.data for part in parts)
        length = sum(part.nbytes for part in parts)
        planes = tuple(
            Plane(
                bits=bits,
                shard_bytes=plane[0].nbytes,
                order=tuple(order),
                checksums=tuple(zlib.crc32(shard) for shard in plane),
                gains=(0.0,) * count,
            )
            for (bits, plane), order in zip(encoded.planes.items(), encoded.orders, strict=True)
        )
        layout = SliceGroup(
            layer=layer,
            kind=kind,
            number=number,
            first=first,
            start=start,
            length=length,
            shard_weights=self._draft.kind(kind).shard_weights,
            outlier_bytes=tuple(outliers.nbytes for outliers in encoded.outliers),
            outlier_checksums=tuple(zlib.crc32(outliers) for outliers in encoded.outliers),
            planes=planes,
        )
        self._written.append(layout)
        self._end = start + length
        if number + 1 == len(self._draft.kind(kind).groups):
            size = padded(self._end)
            self._stream.write(bytes(size - self._end))
            self._place(layout.tensor, "U8", (size,), size)
        return layout

    def finish(self, manifest: Manifest) -> Manifest:
        """Write index and header.

        Args:
            manifest: the final one: its groups as ``group`` returned them, with their gains, and
                for a part also those of the other layers, as the whole pack has them; its
                ``resident`` and ``sha256`` are replaced by what was written.

        Returns:
            The manifest as written, as a reader will find it.

        Raises:
            PackFormatError: no reader would take it: its parts do not fit one another, or graphs or
                tokenizer are not what those of packs may be.
        """
        assert len(self._written) == len(self._order), "groups are missing"
        index = index_arrays(manifest)
        at = 0
        for name, _, _, length in self._places:
            if name in INDEX:
                self._region[at : at + length] = index[name].tobytes()
            at += length
        region = memoryview(self._region)
        check_parts(
            manifest,
            self._tensors(),
            lambda offset, length: region[offset : offset + length],
            where=NEW_PACK,
        )
        source = _Residents(manifest, self._resident)
        CheckedGraphs(source, where=NEW_PACK).check()
        if manifest.part is None:
            checked_tokenizer(source, where=NEW_PACK)
        final = manifest._replace(
            resident=ResidentRegion(
                self._places[0][0], len(self._region), zlib.crc32(self._region)
            ),
            sha256=ContentHashes(self._content.hexdigest(), index_hash(index)),
        )
        header = _header(final, self._places)
        space = self._start - LENGTH_BYTES
        assert len(header) <= space, "the header outgrew the space set aside for it"
        header = header.ljust(space)
        start = len(HEADER_START)
        digits = b"%08x" % header_checksum(header)
        self._stream.seek(0)
        self._stream.write(space.to_bytes(LENGTH_BYTES, "little"))
        self._stream.write(header[:start] + digits + header[start + CHECKSUM_DIGITS :])
        self._stream.write(self._region)
        return final._replace(groups=read_index(final, index.__getitem__, where=NEW_PACK))


@dataclass(frozen=True, slots=True)
class _Residents:
    """What readers will find in the resident region."""

    manifest: Manifest
    arrays: Mapping[str, NDArray[Any]]

    def resident(self, name: str) -> NDArray[Any]:
        if name not in self.arrays:
            raise PackFormatError(f"{NEW_PACK}: resident tensor {name!r} is missing")
        return self.arrays[name]

    def has_resident(self, name: str) -> bool:
        return name in self.arrays


def _header(manifest: Manifest, places: Sequence[Place]) -> bytes:
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
