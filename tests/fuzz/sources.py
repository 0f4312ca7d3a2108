"""Sound inputs that readers start from: a tiny pack, its parts, a place for files.

Knows no reader.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

import sti
from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from tests.support.pack_bytes import manifest_of, table_of
from tests.support.packs import tiny_pack

TASK = "classification"


@cache
def place() -> Path:
    """A directory for files of this process; removed at its end."""
    holder = tempfile.TemporaryDirectory(prefix="sti-fuzz-")
    _holders.append(holder)
    return Path(holder.name)


_holders: list[tempfile.TemporaryDirectory[str]] = []


def written(name: str, data: bytes) -> Path:
    """A file that holds an input."""
    path = place() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a file that is emptied and written again is waited for on ext4
    path.write_bytes(data)
    return path


@cache
def pack_bytes() -> bytes:
    """A sound pack."""
    return tiny_pack(TASK).read_bytes()


class _Parts(NamedTuple):
    """What is used of the pack: a reader of it is not left open."""

    manifest: Manifest
    pack_id: str
    residents: Mapping[str, NDArray[Any]]


@cache
def _parts() -> _Parts:
    with PackReader.open(tiny_pack(TASK)) as reader:
        names = [name for name in reader.tensors() if reader.has_resident(name)]
        residents = {name: reader.resident(name) for name in names}
        return _Parts(reader.manifest, reader.pack_id, residents)


def manifest() -> Manifest:
    """Its manifest, with all groups."""
    return _parts().manifest


def pack_id() -> str:
    """Its identity."""
    return _parts().pack_id


def residents() -> Mapping[str, NDArray[Any]]:
    """Its resident tensors by name."""
    return _parts().residents


@cache
def table() -> dict[str, Any]:
    """Its tensor table."""
    return table_of(pack_bytes())


@cache
def manifest_json() -> dict[str, Any]:
    """Its manifest as JSON."""
    return manifest_of(pack_bytes())


def names_in(*values: Any) -> tuple[str, ...]:
    """Names of members and short texts in JSON documents, each once."""
    found: dict[str, None] = {}
    waiting = list(values)
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            found.update(dict.fromkeys(item))
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and len(item) < 40:
            found[item] = None
    return tuple(found)


def dumped(value: Any) -> bytes:
    """A JSON document."""
    return json.dumps(value, separators=(",", ":")).encode()


def parsed(data: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        InputError: it is none.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error


def device(name: str) -> bytes:
    """The file of a device that ships."""
    return (Path(sti.__file__).parent / "device" / "devices" / f"{name}.json").read_bytes()
