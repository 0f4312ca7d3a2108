"""Packs of format 2 from before slices were joined: opening them, for ``sti-shard upgrade``.

In: the path of a pack. Out: an open pack whose manifest says what packs of this release say, or
None for other packs. Only the graphs, which took the slices of an operand one by one, have to be
made again; weights, residents and the index are those of this release.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from shard_tools.packing.joints import joined_kinds
from sti.errors import PackCorruptError, PackFormatError
from sti.json_fields import JsonFields
from sti.model.manifest import FORMAT_VERSION, JOINED
from sti.pack.header import fitting_manifest, pack_id_of, read_frame, resident_place
from sti.pack.manifest_reader import MANIFEST_LIMITS
from sti.pack.pack_file import PackFile
from sti.pack.pack_reader import PackReader
from sti.storage.json_input import parse_json


def open_unjoined(path: Path) -> tuple[PackReader, str] | None:
    """An open pack of an earlier format 2, and its identity; None for a pack of another kind.

    Raises:
        PackFormatError: not a pack, or malformed.
        PackCorruptError: truncated, or header or residents do not match their checksums.
        PackError, StorageError: the file cannot be read.
    """
    file = PackFile(path)
    try:
        text, table, start = read_frame(file)
        where = str(path)
        fields = _unjoined(text, where)
        if fields is None:
            file.close()
            return None
        changed = {"requires": [*fields.texts("requires"), JOINED], "kinds": joined_kinds(fields)}
        told = json.dumps(fields.members() | changed)
        manifest = fitting_manifest(told, table, start, where=where)
        place = resident_place(table, manifest)
        region = file.read_view(place.offset, place.length)
        if zlib.crc32(region) != manifest.resident.checksum:
            raise PackCorruptError(
                f"{path}: the resident tensors: checksum does not match; the pack is damaged, "
                "fetch it again"
            )
        return PackReader(file, text, table, manifest, region), pack_id_of(text)
    except BaseException:
        file.close()
        raise


def _unjoined(text: str, where: str) -> JsonFields | None:
    """The manifest, if it is of format 2 and its slices are not joined."""
    try:
        parsed = parse_json(text, MANIFEST_LIMITS)
    except ValueError as error:
        raise PackFormatError(f"{where}: the manifest is not valid JSON: {error}") from error
    fields = JsonFields(parsed, where=f"{where}: manifest", error=PackFormatError)
    if fields.integer("format") != FORMAT_VERSION or JOINED in fields.texts("requires"):
        return None
    return fields
