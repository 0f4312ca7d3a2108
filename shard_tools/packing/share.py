"""Making a part of a pack: what one device of a chain of layers needs of it.

In: the path of a pack, the first and the last layer. Out: a part (``FORMAT.md``, section 1.5) whose
blocks, residents and graphs are the same to the bit, with the pack's own manifest, so that steps of
plans can be checked. Every byte that is copied is compared with its checksum. Knows nothing of
devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.packing.pack_writer import PackWriter, check_output, replacing_pack
from shard_tools.packing.stored import damaged, stored_group, stored_residents, stored_words
from shard_tools.progress import Progress
from sti.errors import InputError
from sti.graphs.interfaces import EMBED
from sti.model.manifest import Manifest
from sti.model.part import Part
from sti.pack.pack_reader import PackReader


def share(
    pack: Path, output: Path, first: int, last: int, *, progress: bool | None = None
) -> Manifest:
    """Write a part of a pack.

    Args:
        pack: a pack; only read. It may be a part that has these layers: the new part is then one of
            the whole pack too, and the same file as if it was made of that.
        output: the part; replaced as a whole when all went well, untouched otherwise.
        first, last: numbers of layers; the part has both and all between them.
        progress: True or False shows or hides the progress line; None shows it on a terminal.

    Returns:
        The manifest as written.

    Raises:
        InputError: the model has no such layers, or ``output`` cannot be a file, or is ``pack``.
        PackFormatError: not a pack, or malformed.
        PackCorruptError: the pack is damaged; names the place.
        PartError: the pack is a part without these layers.
        PackError, StorageError: reading or writing failed.
    """
    with PackReader.open(pack) as reader:
        manifest = _manifest(reader, first, last)
        residents = _residents(reader, manifest)
        groups = manifest.held_groups
        size = sum(group.length for group in groups)
        size += sum(array.nbytes for array in residents.values())
        if manifest.holds_words:
            size += manifest.embeddings.rows * manifest.embeddings.row_bytes
        check_output(output, size, apart=[pack])
        with replacing_pack(output, size) as stream, Progress(float(size), shown=progress) as line:
            writer = PackWriter(stream, manifest._replace(groups=()), residents)
            writer.words(_words(reader, line) if manifest.holds_words else ())
            for group in groups:
                writer.group(stored_group(reader, group, [plane.order for plane in group.planes]))
                line.step(float(group.length), f"copying layer {group.layer}")
            written = writer.finish(manifest)
            if written.sha256.of_index != reader.manifest.sha256.of_index:
                raise damaged(reader, "the index")
            return written


def _manifest(reader: PackReader, first: int, last: int) -> Manifest:
    """The manifest of the part; refuses layers that the pack does not have."""
    whole, most = reader.manifest, reader.manifest.dimensions.layers - 1
    pack_id = reader.pack_id if reader.part is None else reader.part.pack_id
    part = Part(reader.content, pack_id, first, last)
    if not 0 <= first <= last <= most:
        raise InputError(
            f"{reader.path}: the model has layers 0 to {most}, and not {part.words}; name a layer "
            "or a range of them"
        )
    manifest = whole._replace(part=part)
    for group in manifest.held_groups:
        reader.group_offset(group)  # where it is a part itself
    return manifest


def _residents(reader: PackReader, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Graphs, the head and what the layers are fed; with the first layer what ``embed`` is fed.

    The head is in every part, as a submodel may end at any layer. Texts become tokens where a run
    is planned, so no part has the tokenizer's tables.
    """
    kept = ["head.", *(f"layer.{layer}." for layer in manifest.held_layers)]
    if manifest.holds_words:
        kept.append(f"{EMBED}.")
    graphs = set(manifest.graphs.values())
    return {
        name: array
        for name, array in stored_residents(reader).items()
        if name in graphs or name.startswith(tuple(kept))
    }


def _words(reader: PackReader, line: Progress) -> Iterator[NDArray[np.uint8]]:
    """The embedding table in chunks; steps ``line`` by 1 a byte."""
    for rows in stored_words(reader):
        yield rows
        line.step(float(rows.nbytes), "copying token embeddings")
