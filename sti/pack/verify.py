"""Checks all of a pack: every checksum, both hashes, the vocabulary's index, and zero padding.

In: the path of a pack, or of a part of one. Out: a report that names everything that does not match
its checksum: the layer, kind, group, slice and plane of a shard, the rows of the embedding table,
or the region. Reads the file group by group, and once more for the SHA-256 of the whole.
``verify_content`` compares the two hashes alone, for engines.
Knows nothing of what tensors mean.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sti.errors import PackCorruptError, PackError, PackFormatError
from sti.model.manifest import Manifest, SliceGroup
from sti.model.part import Part
from sti.pack.content_hash import ContentHash, Piece, bad_rows, pieces_of, word_chunks
from sti.pack.header import VOCABULARY, WORDS, padded, read_header, resident_place
from sti.pack.index import INDEX, index_hash
from sti.pack.pack_file import PackFile
from sti.pack.pack_reader import PackReader
from sti.pack.safetensors_table import TensorInfo, TensorTable
from sti.pack.tokenizer import pack_tokenizer, stored_index
from sti.text.kinds import KINDS
from sti.text.tokenizer_spec import TokenizerSpec

_CHUNK = 1 << 22

Progress = Callable[[int, int], None]
"""Called with bytes done and total bytes, from the calling thread."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a pack that does not match its checksum (or, for padding, is not zero)."""

    part: str
    """``resident``, ``index``, ``vocabulary``, ``words``, ``outliers``, ``plane``, ``padding`` or
    ``content``: the hash of everything, where every checksum matches."""
    offset: int
    length: int
    layer: int | None = None
    kind: str | None = None
    group: int | None = None
    slice: int | None = None
    """By its number in the block."""
    bits: int | None = None
    """The plane, by the fidelity it raises a shard to."""
    row: int | None = None
    """The first of neighbouring rows of the embedding table."""

    def __str__(self) -> str:
        place = f"bytes {self.offset} to {self.offset + self.length}"
        if self.row is not None:
            return f"{self.part}, from row {self.row} ({place})"
        if self.layer is None:
            return f"{self.part} ({place})"
        inside = f"layer {self.layer} {self.kind}"
        if self.group is not None:
            inside += f" group {self.group}"
        if self.slice is not None:
            inside += f" slice {self.slice}"
        return f"{inside} {self.part}" + (f" {self.bits}" if self.bits else "") + f" ({place})"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of all of a file found."""

    path: Path
    file_bytes: int
    checksums: int
    """How many checksums and hashes were compared."""
    sha256: str
    """Of the whole file, as 64 hexadecimal digits: what a publisher's can be compared with."""
    damage: tuple[Damage, ...]
    """In the order of the file; empty for a sound pack."""
    part: Part | None = None
    """Of which pack the file says that it is a part; nothing of that pack is compared with it."""

    @property
    def good(self) -> bool:
        """Whether there is none."""
        return not self.damage


def verify(path: Path | str, progress: Progress | None = None) -> VerifyReport:
    """Read a pack and compare every checksum.

    Where the index is damaged, nothing behind the resident region can be compared but the rows of
    the embedding table and the padding after them.

    Args:
        path: the pack, or a part of one.
        progress: is told how far it is.

    Raises:
        PackFormatError, PackCorruptError: the header is unusable, so that nothing can be compared,
            or although the region is as it was written, a graph or the tokenizer is not what
            those of packs may be, residents do not fit one another, or the index contradicts
            itself or the file; or the file was changed meanwhile.
        PackError, StorageError: the file cannot be read.
    """
    with PackFile(Path(path)) as file:
        text, table, manifest = read_header(file)
        place = resident_place(table, manifest)
        region = file.read_view(place.offset, place.length)
        check = _Check(file, table, manifest, progress)
        check.region(place, region)
        try:
            reader = PackReader(file, text, table, manifest, region)
            reader.check_parts()
        except PackError:
            if not check.damage:
                raise
            check.words(None)
        else:
            if not check.damage:
                reader.check_graphs()
            check.rest(reader)
            if not check.damage and manifest.part is None:
                pack_tokenizer(reader)
        whole = _file_hash(file)
        file.check_unchanged()
        damage = tuple(check.damage)
        return VerifyReport(file.path, table.end, check.compared, whole, damage, part=manifest.part)


def _file_hash(file: PackFile) -> str:
    """SHA-256 of a whole file, in hexadecimal digits."""
    found, size = hashlib.sha256(), file.opened.size
    for offset in range(0, size, _CHUNK):
        found.update(file.read(offset, min(_CHUNK, size - offset)))
    return found.hexdigest()


def verify_content(reader: PackReader, progress: Progress | None = None) -> None:
    """Read an open pack once and compare its two hashes with those in its manifest.

    Raises:
        PackCorruptError: one of them does not match.
        StorageError: reading failed.
    """
    manifest = reader.manifest
    stated = manifest.sha256
    index = index_hash({name: reader.resident(name) for name in INDEX})
    content = ContentHash(reader)
    if manifest.holds_words:
        for _, rows in word_chunks(reader.read, manifest.embeddings, reader.embeddings_offset):
            content.words(rows)
    for group in manifest.held_groups:
        data = memoryview(reader.read(reader.group_offset(group), group.length))
        content.group(data, pieces_of(group))
        if progress is not None:
            progress(reader.group_offset(group) + group.length, reader.file_bytes)
    for name, found, wanted in (
        ("index", index, stated.of_index),
        ("content", content.digest(), stated.content),
    ):
        if found != wanted:
            raise PackCorruptError(
                f"{reader.path}: the {name} does not match its SHA-256; the pack is damaged, fetch "
                "it again (`sti-shard verify` says where)"
            )


class _Check:
    """One pass over an open pack."""

    def __init__(
        self, file: PackFile, table: TensorTable, manifest: Manifest, progress: Progress | None
    ) -> None:
        self._file, self._table, self._manifest = file, table, manifest
        self._progress = progress
        self.compared = 0
        self.damage: list[Damage] = []

    def region(self, place: TensorInfo, region: memoryview) -> None:
        """Compare the resident region."""
        self.compared += 1
        if zlib.crc32(region) != self._manifest.resident.checksum:
            self.damage.append(Damage("resident", place.offset, place.length))

    def rest(self, reader: PackReader) -> None:
        """Compare everything else; of the blocks nothing where the index is not to be trusted."""
        sound = not self.damage
        trusted = self._index(reader, tell=sound)
        if sound and self._manifest.part is None:
            self._vocabulary(reader)
        content = ContentHash(reader)
        self.words(content)
        if not trusted:
            return
        for _, groups in groupby(reader.manifest.held_groups, key=lambda group: group.tensor):
            self._block(list(groups), reader.group_offset, content)
        self.compared += 1
        if content.digest() != self._manifest.sha256.content and all(
            item.part == "padding" for item in self.damage
        ):
            place = resident_place(self._table, self._manifest)
            self.damage.append(Damage("content", place.offset, self._table.end - place.offset))

    def _index(self, reader: PackReader, *, tell: bool) -> bool:
        """Whether the index is the one that was written."""
        self.compared += 1
        good = index_hash({name: reader.resident(name) for name in INDEX}) == (
            self._manifest.sha256.of_index
        )
        if not good and tell:
            places = [self._table.tensors[name] for name in INDEX]
            start = min(place.offset for place in places)
            end = max(place.offset + place.length for place in places)
            self.damage.append(Damage("index", start, end - start))
        return good

    def _vocabulary(self, reader: PackReader) -> None:
        """Make the vocabulary's index again and compare."""
        place = self._table.tensors[VOCABULARY]
        try:
            kind = TokenizerSpec.from_json(self._manifest.tokenizer).kind
            stored = stored_index(reader, kind)
            made = KINDS[kind].indexing.make(reader.resident(VOCABULARY).tobytes())
            good = all(
                one.tobytes() == other.tobytes() for one, other in zip(made, stored, strict=True)
            )
        except PackFormatError:
            good = False
        if not good:
            self.damage.append(Damage("vocabulary", place.offset, place.length))

    def words(self, content: ContentHash | None) -> None:
        """Compare the rows of the embedding table, if it is there; the padding after it must be
        zero.
        """
        if not self._manifest.holds_words:
            return
        table, start = self._manifest.embeddings, self._table.tensors[WORDS].offset
        for first, data in word_chunks(self._file.read, table, start):
            if content is not None:
                content.words(data)
            bad = bad_rows(data, table.row_bytes, first=first)
            for row, count in _runs(bad):
                offset = start + row * table.row_bytes
                self.damage.append(Damage("words", offset, count * table.row_bytes, row=row))
            self._report(start + first * table.row_bytes + len(data))
        self.compared += table.rows
        length = table.rows * table.row_bytes
        rest = padded(length) - length
        if any(self._file.read(start + length, rest)):
            self.damage.append(Damage("padding", start + length, rest))

    def _block(
        self,
        groups: list[SliceGroup],
        place: Callable[[SliceGroup], int],
        content: ContentHash,
    ) -> None:
        """Compare every outlier list and shard of a block's groups, and what lies between them."""
        base = place(groups[0])
        ends = [group.start for group in groups[1:]]
        last = groups[-1]
        ends.append(padded(last.start + last.length))
        for group, end in zip(groups, ends, strict=True):
            offset = base + group.start
            data = memoryview(self._file.read(offset, end - group.start))
            pieces = list(pieces_of(group))
            for piece in pieces:
                self.compared += 1
                part = data[piece.start : piece.start + piece.length]
                if zlib.crc32(part) != piece.checksum:
                    self.damage.append(_damage(group, offset, piece))
            content.group(data, pieces)
            if any(data[group.length :]):
                rest = len(data) - group.length
                self.damage.append(
                    Damage(
                        "padding",
                        offset + group.length,
                        rest,
                        group.layer,
                        group.kind,
                        group.number,
                    )
                )
            self._report(offset + len(data))

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._table.end)


def _damage(group: SliceGroup, offset: int, piece: Piece) -> Damage:
    return Damage(
        part="plane" if piece.plane else "outliers",
        offset=offset + piece.start,
        length=piece.length,
        layer=group.layer,
        kind=group.kind,
        group=group.number,
        slice=group.first + piece.slice,
        bits=group.planes[piece.plane - 1].bits if piece.plane else None,
    )


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Runs of neighbours among ascending numbers: the first of each, and how many."""
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            yield numbers[start], place - start
            start = place
