"""Packs with other bytes in them, their checksums made good: for tests of what readers refuse."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sti.pack.header import DTYPES, HEADER_START, header_checksum


def with_header(data: bytes, header: bytes) -> bytes:
    """The pack with another header of the same length, its checksum made good."""
    start, space = len(HEADER_START), int.from_bytes(data[:8], "little")
    assert len(header) <= space
    header = header.ljust(space)
    digits = b"%08x" % header_checksum(header)
    return data[:8] + header[:start] + digits + header[start + 8 :] + data[8 + space :]


def table_of(data: bytes) -> dict[str, Any]:
    """The tensor table of a pack (manifest included, as text)."""
    space = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(data[8 : 8 + space])
    return found


def manifest_of(data: bytes) -> dict[str, Any]:
    """The manifest's JSON."""
    found: dict[str, Any] = json.loads(table_of(data)["__metadata__"]["sti"])
    return found


def with_table(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The pack with a changed tensor table (manifest included, as text)."""
    table = table_of(data)
    change(table)
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
    return with_header(data, text.encode())


def with_manifest(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The pack with a changed manifest."""

    def inside(table: dict[str, Any]) -> None:
        manifest = json.loads(table["__metadata__"]["sti"])
        change(manifest)
        table["__metadata__"]["sti"] = json.dumps(manifest, separators=(",", ":"))

    return with_table(data, inside)


def with_resident(data: bytes, name: str, change: Callable[[np.ndarray], object]) -> bytes:
    """The pack with a resident tensor changed in place; hashes stay what they were."""
    table, base = table_of(data), 8 + int.from_bytes(data[:8], "little")
    begin, end = table[name]["data_offsets"]
    array = np.frombuffer(data[base + begin : base + end], DTYPES[table[name]["dtype"]])
    array = array.reshape(table[name]["shape"]).copy()
    change(array)
    changed = data[: base + begin] + array.tobytes() + data[base + end :]
    length = json.loads(table["__metadata__"]["sti"])["resident"]["length"]
    checksum = zlib.crc32(changed[base : base + length])
    return with_manifest(changed, lambda m: m["resident"].update(checksum=checksum))


def damaged(pack: Path, place: Path, *offsets: int) -> Path:
    """The pack at ``place`` with a flipped bit at each of these bytes."""
    data = bytearray(pack.read_bytes())
    for offset in offsets:
        data[offset] ^= 0x40
    place.write_bytes(data)
    return place
