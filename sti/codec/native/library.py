"""Finding and loading the kernel's library, if it is for this processor and of this interface.

In: the folder of this package. Out: the library with its functions declared, or None where there is
none; STI then decodes in NumPy. A library that cannot be used, or that does not decode a known
example, is refused with a ``StiWarning`` that names it and the reason. Knows nothing of codebooks
of packs, shards or files.
"""

from __future__ import annotations

import functools
import platform
import struct
import sys
import warnings
from ctypes import CDLL, addressof, byref, c_char_p, c_ulong, create_string_buffer
from pathlib import Path
from zlib import crc32

import numpy as np

from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.native.structures import (
    ABI,
    ARM_CRC,
    AVX2,
    CHECK,
    CLMUL,
    FINE,
    NEON,
    SIGNATURES,
    SSSE3,
    WIDE_CLMUL,
    FoundFault,
    Operand,
    code_of,
)
from sti.codec.pieces import SHARD
from sti.errors import StiWarning

FOLDER = Path(__file__).resolve().parent
LIBRARY_NAME = f"sti_codec.{platform.machine()}.so"
"""The file in ``FOLDER`` that holds the library for this machine."""

_PATHS = {
    "avx2": SSSE3 | AVX2 | CLMUL | WIDE_CLMUL,
    "ssse3": SSSE3 | CLMUL,
    "neon": NEON | ARM_CRC,
    "scalar": 0,
}
"""Paths, best first, and all that each uses of a processor that has it."""
_NEEDS = {"avx2": AVX2, "ssse3": SSSE3, "neon": NEON, "scalar": 0}
"""What each path cannot do without: the rest only makes checksums faster."""

_AT_HWCAP, _HWCAP_CRC32 = 16, 1 << 7

_WEIGHTS = 1096
_OUTLIERS = bytes([1, 0, 0, 0, 17, 2, 0x9C, 0])
_DECODED = 0xBCF33023


_ELF_HEADER = struct.Struct("<6s26xQQ6xHHHH2x")
"""Of 64 bits, little endian: where the tables of parts and sections are, and how long."""
_PART_OFFSET = 8
"""In an entry of the table of parts: where it begins in the file; its length follows."""


class Refused(Exception):
    """The library cannot be used; the message says why."""


@functools.cache
def library() -> LoadedLibrary | None:
    """The library of this machine, loaded once; None where there is none, or it was refused."""
    file = FOLDER / LIBRARY_NAME
    if not file.exists():
        return None
    try:
        return LoadedLibrary(file)
    except Refused as error:
        warnings.warn(
            f"{file}: {error}. STI decodes without its native kernel, which is slower; "
            "install STI again to build it",
            StiWarning,
            stacklevel=2,
        )
        return None


class LoadedLibrary:
    """A library whose functions may be called.

    Attributes:
        paths: the paths that run here, best first, and the features each uses.

    Raises:
        Refused: it cannot be loaded, is of another version, or does not decode right.
    """

    def __init__(self, file: Path) -> None:
        if not _whole(file):
            raise Refused("is not a whole library: it was cut off, or is something else")
        try:
            loaded = CDLL(str(file))
            for name, (result, arguments) in SIGNATURES.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise Refused(f"cannot be loaded: {error}") from error
        if loaded.sti_abi() != ABI:
            raise Refused(f"has interface {loaded.sti_abi()}, not {ABI}")
        usable = loaded.sti_features() | _arm_crc()
        self.paths: dict[str, int] = {
            path: uses & usable for path, uses in _PATHS.items() if not _NEEDS[path] & ~usable
        }
        self.decode, self.rows, self.crc32 = loaded.sti_decode, loaded.sti_rows, loaded.sti_crc32
        wrong = self._wrong_paths()
        if wrong:
            raise Refused(f"does not decode a known example ({', '.join(wrong)})")

    def _wrong_paths(self) -> list[str]:
        """Paths that do not decode an example as they must: 1,096 weights, 6 bits, one outlier.

        Values are 3 times the code, less 96 at 6 bits, so that a sum of two look-ups decodes them.
        """
        values = {bits: np.arange(1 << bits) * 3 - 96 for bits in DEFAULT_LADDER}
        book = Codebook(DEFAULT_LADDER, {b: v.astype(np.int8) for b, v in values.items()})
        code = code_of(book, weights="s8", features=0)
        sizes = [_WEIGHTS * width // 8 for width in (2, 1, 1, 2)]
        data = bytes(i * i // 7 & 255 for i in range(sum(sizes))) + _OUTLIERS
        shard, start = np.zeros(1, dtype=SHARD), 0
        shard["planes"] = len(sizes)
        for number, length in enumerate((*sizes, len(_OUTLIERS)), 1):
            checksum = crc32(data[start : start + length])
            shard["pieces"][0, number % 5] = (0, length, start, checksum, 0)
            start += length
        starts, wrong = np.zeros(1, dtype=np.uint64), []
        for path, code.features in self.paths.items():
            out = create_string_buffer(_WEIGHTS)
            ended = self.decode(
                *(byref(code), c_char_p(data), len(data), starts.ctypes.data, 1),
                *(shard.ctypes.data, 1, byref(Operand(addressof(out), 1, 1, 1, _WEIGHTS)), 1),
                *(CHECK, byref(FoundFault())),
            )
            if ended != FINE or crc32(out.raw) != _DECODED:
                wrong.append(path)
        return wrong


def _whole(file: Path) -> bool:
    """Whether a file is as long as its own headers say: the system maps one that was cut off.

    Using what is missing would end the process. Bytes that are wrong are for the self-test.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(_ELF_HEADER.size)
            magic, parts_at, sections_at, part_size, parts, section_size, sections = (
                _ELF_HEADER.unpack(head)
            )
            stream.seek(parts_at)
            table = stream.read(part_size * parts)
        extents = [
            sum(struct.unpack_from("<Q16xQ", table, at + _PART_OFFSET))
            for at in range(0, len(table), part_size)
        ]
    except (OSError, ValueError, OverflowError, struct.error):
        return False
    extents += [sections_at + section_size * sections, parts_at + part_size * parts]
    return bool(magic == b"\x7fELF\x02\x01" and max(extents) <= size)


def _arm_crc() -> int:
    """``ARM_CRC`` where the system says that the processor has these instructions."""
    if platform.machine() != "aarch64" or sys.platform not in ("linux", "android"):
        return 0
    try:
        ask = CDLL(None).getauxval
    except (OSError, AttributeError):
        return 0
    ask.restype, ask.argtypes = c_ulong, (c_ulong,)
    return ARM_CRC if ask(_AT_HWCAP) & _HWCAP_CRC32 else 0
