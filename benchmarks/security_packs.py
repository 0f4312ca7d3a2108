"""A pack taken apart and put together again, its checksums made good: as a stranger would.

In: the path of a sound pack, changes to its parts. Out: the bytes of another pack, in which header,
residents and index match their checksums whatever they hold. Knows nothing of what is refused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.pack.header import (
    CHECKSUM_DIGITS,
    DTYPES,
    HEADER_START,
    PAD,
    WORDS,
    header_checksum,
    padded,
)
from sti.pack.index import INDEX, index_hash
from sti.pack.safetensors_table import LENGTH_BYTES

TextEdit = Callable[[str], str]


class Tensor(NamedTuple):
    """A tensor as it is stored."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> Tensor:
        """An array, of one of the types that packs have."""
        name = next(name for name, dtype in DTYPES.items() if dtype == array.dtype)
        return cls(name, array.shape, array.tobytes())

    @property
    def array(self) -> NDArray[Any]:
        """A copy that may be changed."""
        return np.frombuffer(self.data, DTYPES[self.dtype]).reshape(self.shape).copy()


class PackParts:
    """The parts of a pack. They may be changed in any way; ``copy`` first.

    Attributes:
        manifest: its JSON.
        residents: tensors of the resident region in their order, without its padding.
        words: the embedding table, with its padding.
        blocks: name to bytes.
        manifest_edits, table_edits, header_edits: are applied to the manifest's text, to the
            tensor table before it is written, and to the whole header before its checksum.
        space: bytes set aside for the header; None: as many as it takes.
        resident_length: what the manifest says, where that is not the truth.
        as_stated: whether what the manifest says of the residents stays.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        space = int.from_bytes(data[:LENGTH_BYTES], "little")
        table = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + space])
        base = LENGTH_BYTES + space
        self.manifest: dict[str, Any] = json.loads(table.pop("__metadata__")["sti"])
        found = {}
        for name, item in table.items():
            begin, end = item["data_offsets"]
            stored = data[base + begin : base + end]
            found[name] = Tensor(item["dtype"], tuple(item["shape"]), stored)
        names = list(found)
        at = names.index(WORDS)
        self.residents = {name: found[name] for name in names[:at] if name != PAD}
        self.words = found[WORDS].data
        self.blocks = {name: found[name].data for name in names[at + 1 :]}
        self.manifest_edits: list[TextEdit] = []
        self.table_edits: list[Callable[[dict[str, Any]], object]] = []
        self.header_edits: list[TextEdit] = []
        self.resident_length: int | None = None
        self.as_stated = False

    def copy(self) -> PackParts:
        """Parts that may be changed without these."""
        made = object.__new__(PackParts)
        made.manifest = deepcopy(self.manifest)
        made.residents, made.blocks = dict(self.residents), dict(self.blocks)
        made.words, made.resident_length, made.as_stated = self.words, None, False
        made.manifest_edits, made.table_edits, made.header_edits = [], [], []
        return made

    def change(self, name: str, change: Callable[[NDArray[Any]], object]) -> None:
        """Change a resident tensor in place."""
        array = self.residents[name].array
        change(array)
        self.residents[name] = Tensor.of(array)

    def sealed(self) -> bytes:
        """The file, all checksums but those of rows, pieces and the content made good."""
        residents = dict(sorted(self.residents.items(), key=lambda item: _alignment(item[1])))
        region = b"".join(tensor.data for tensor in residents.values())
        pad = bytes(padded(len(region)) - len(region))
        region += pad
        entries = {
            **residents,
            PAD: Tensor("U8", (len(pad),), pad),
            WORDS: Tensor("U8", (len(self.words),), self.words),
            **{name: Tensor("U8", (len(data),), data) for name, data in self.blocks.items()},
        }
        self._seal_manifest(region, next(iter(entries)))
        return self._header(entries) + region + self.words + b"".join(self.blocks.values())

    def _seal_manifest(self, region: bytes, first: str) -> None:
        resident, hashes = self.manifest.get("resident"), self.manifest.get("sha256")
        if isinstance(resident, dict) and not self.as_stated:
            length = self.resident_length or len(region)
            resident.update(first=first, length=length, checksum=zlib.crc32(region))
        if isinstance(hashes, dict) and all(name in self.residents for name in INDEX):
            hashes["index"] = index_hash({name: self.residents[name].array for name in INDEX})

    def _header(self, entries: dict[str, Tensor]) -> bytes:
        text = json.dumps(self.manifest, separators=(",", ":"), ensure_ascii=False)
        for edit in self.manifest_edits:
            text = edit(text)
        table: dict[str, Any] = {
            "__metadata__": {"format": "sti", "crc32": "0" * CHECKSUM_DIGITS, "sti": text}
        }
        end = 0
        for name, tensor in entries.items():
            start, end = end, end + len(tensor.data)
            table[name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }
        for change in self.table_edits:
            change(table)
        header = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
        for edit in self.header_edits:
            header = edit(header)
        raw = header.encode("utf-8", "surrogatepass")
        raw = raw.ljust(padded(LENGTH_BYTES + len(raw)) - LENGTH_BYTES)
        at = len(HEADER_START)
        digits = b"%08x" % header_checksum(raw)
        raw = raw[:at] + digits + raw[at + CHECKSUM_DIGITS :]
        return len(raw).to_bytes(LENGTH_BYTES, "little") + raw


def _alignment(tensor: Tensor) -> int:
    dtype = DTYPES.get(tensor.dtype)
    return -dtype.itemsize if dtype is not None else 0
