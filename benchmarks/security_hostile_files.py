"""Files that are no packs, or not whole ones, by kind.

In: the parts of a sound pack, a source of random numbers, a path where nothing is. Out: something
at that path. Knows nothing of what must come of it: every one must be refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.security_packs import PackParts
from sti.pack.header import PAD

Harm = Callable[[PackParts, Random, Path], object]

_HEAD = 8


def _shorter(parts: PackParts, rng: Random, path: Path) -> None:
    data = parts.sealed()
    path.write_bytes(data[: rng.choice((rng.randrange(64), rng.randrange(len(data))))])


def _longer(parts: PackParts, rng: Random, path: Path) -> None:
    path.write_bytes(parts.sealed() + rng.randbytes(rng.choice((1, 4096, 100_000))))


def _sparse(parts: PackParts, rng: Random, path: Path) -> None:
    """A file of a terabyte that takes no storage: a pack and nothing, or nothing at all."""
    path.write_bytes(rng.choice((parts.sealed(), b"")))
    os.truncate(path, rng.choice((1 << 33, 1 << 40)))


def _sparse_residents(parts: PackParts, rng: Random, path: Path) -> None:
    """Residents of gigabytes, as the table and the manifest say alike."""
    more = rng.choice((1 << 27, 1 << 33, 1 << 40))
    whole = len(parts.sealed())
    length = parts.manifest["resident"]["length"]

    def grow(table: dict[str, Any]) -> None:
        names = list(table)
        for name in names[names.index(PAD) :]:
            begin, end = table[name]["data_offsets"]
            table[name]["data_offsets"] = [begin + (more if name != PAD else 0), end + more]
        table[PAD]["shape"] = [table[PAD]["shape"][0] + more]

    parts.table_edits.append(grow)
    parts.resident_length = length + more
    path.write_bytes(parts.sealed())
    os.truncate(path, whole + more)


def _header_length(parts: PackParts, rng: Random, path: Path) -> None:
    data = parts.sealed()
    lengths = (0, 1, 7, len(data), 1 << 22, (1 << 22) + 1, 1 << 31, 1 << 40, (1 << 64) - 1)
    path.write_bytes(rng.choice(lengths).to_bytes(_HEAD, "little") + data[_HEAD:])


def _long_header(parts: PackParts, rng: Random, path: Path) -> None:
    """A header of gigabytes, in a file that has room for it."""
    size = rng.choice((1 << 23, 99_000_000, 1 << 31, 1 << 34))
    path.write_bytes(size.to_bytes(_HEAD, "little") + parts.sealed()[_HEAD:])
    os.truncate(path, size + (1 << 20))


def _other(parts: PackParts, rng: Random, path: Path) -> None:
    table = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    plain = len(table).to_bytes(_HEAD, "little") + table + b"x"
    start = rng.choice((b"", b"PK\x03\x04", b"\x7fELF", b"GGUF", b"\x80\x04\x95", plain))
    path.write_bytes(start + rng.randbytes(rng.choice((0, 10, 100_000))))


def _pipe(parts: PackParts, rng: Random, path: Path) -> None:
    os.mkfifo(path)


def _directory(parts: PackParts, rng: Random, path: Path) -> None:
    path.mkdir()


def _socket(parts: PackParts, rng: Random, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _device(parts: PackParts, rng: Random, path: Path) -> None:
    path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/full", "/dev/tty", "/proc/kmsg")))


def _system_file(parts: PackParts, rng: Random, path: Path) -> None:
    """A file that the system says has no bytes, and that has some."""
    path.symlink_to(rng.choice(("/proc/self/maps", "/proc/self/mem", "/proc/self/environ")))


def _loop(parts: PackParts, rng: Random, path: Path) -> None:
    path.symlink_to(rng.choice((path, path.with_name("nothing"), path.with_name("x" * 300))))


FILES: Mapping[str, Harm] = {
    "file: truncated": _shorter,
    "file: appended to": _longer,
    "file: sparse": _sparse,
    "file: sparse residents": _sparse_residents,
    "file: length of the header": _header_length,
    "file: header of gigabytes": _long_header,
    "file: of another kind": _other,
    "file: pipe": _pipe,
    "file: directory": _directory,
    "file: socket": _socket,
    "file: device": _device,
    "file: of the system": _system_file,
    "file: link to nowhere": _loop,
}
"""By name."""
