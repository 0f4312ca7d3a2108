"""The table of a safetensors file: where each tensor is.

In: the JSON header of a file. Out: tensors with checked offsets, or the error that the caller
chose. Everything is validated before any data is read: lengths, types, shapes, and that tensors
follow one another without a gap or an overlap, as the reference library requires. Knows nothing of
packs, of checkpoints, or of what tensors mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sti.errors import StiError
from sti.storage.json_input import JsonLimits, parse_json
from sti.storage.lfs_pointers import lfs_words

LENGTH_BYTES = 8
"""The file starts with the header's length, as an unsigned little-endian integer of this size."""

MAX_HEADER_BYTES = 100_000_000
"""Longer headers are refused, by the reference library too."""

MOST_AXES = 8
"""Of a tensor or an operand: more than any needs, few enough for their product to be small."""

LONGEST_NAME = 256
"""Characters of a tensor's name."""

_MALFORMED = "its shape or data_offsets are malformed"

ITEM_BYTES: Mapping[str, int] = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1},
}
"""Bytes per element of each type."""


class TensorInfo(NamedTuple):
    """One tensor: its type, its shape, and its first byte and length inside the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class TensorTable(NamedTuple):
    """The tensors of a file in the order in which it stores them, and its text metadata."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    end: int
    """The offset after the last tensor: the size that the file should have."""
    in_order: bool
    """Whether the header lists the tensors in this order, too."""


def header_bytes(prefix: bytes, file_bytes: int, *, where: str, error: type[StiError]) -> int:
    """Length of the JSON header, from the first 8 bytes of the file.

    Args:
        prefix: the beginning of the file, at least 8 bytes where it has as many.
        file_bytes: size of the file.
        where: the file, for messages.
        error: what is raised when the length is impossible.

    Raises:
        error: the file is too short, or the length reaches beyond it.
    """
    if words := lfs_words(prefix):
        raise error(f"{where}: {words}")
    if file_bytes < LENGTH_BYTES + 2 or len(prefix) < LENGTH_BYTES:
        raise error(f"{where}: too short for a safetensors file ({file_bytes} bytes)")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, file_bytes - LENGTH_BYTES):
        raise error(
            f"{where}: not a safetensors file, or truncated: it states a header of {length} "
            f"bytes, and the whole file has {file_bytes}; fetch it again"
        )
    return length


def parse_table(
    raw: bytes, limits: JsonLimits, *, where: str, error: type[StiError]
) -> TensorTable:
    """Read and check a header. Whether the file ends where its tensors do is the caller's check.

    Args:
        raw: exactly the header, without the 8 bytes before it.
        limits: of what it may hold.
        where: the file, for messages.
        error: what is raised when the header is malformed.

    Raises:
        error: not valid JSON, or entries that are malformed, overlap or leave gaps.
    """
    try:
        parsed = parse_json(raw, limits)
    except ValueError as cause:
        raise error(f"{where}: the safetensors header is not valid JSON: {cause}") from cause
    if not isinstance(parsed, dict):
        raise error(f"{where}: the safetensors header is not a JSON object")
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise error(f"{where}: __metadata__ must map names to strings")
    base = LENGTH_BYTES + len(raw)
    numbers: list[Any] = []
    for name, item in parsed.items():
        numbers += _numbers(name, item, where, error)
    if not _are_naturals(numbers):
        name = next(n for n, i in parsed.items() if not _are_naturals(_numbers(n, i, where, error)))
        raise _fail(name, _MALFORMED, where, error)
    tensors = {name: _place(name, item, base, where, error) for name, item in parsed.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].length)))
    end = base
    for name, place in ordered.items():
        if place.offset != end:
            kind = "overlaps the one before it" if place.offset < end else "leaves a gap before it"
            raise error(f"{where}: tensor {name!r} {kind} at byte {min(place.offset, end)}")
        end += place.length
    return TensorTable(ordered, metadata, end, list(ordered) == list(tensors))


def _numbers(name: str, item: Any, where: str, error: type[StiError]) -> list[Any]:
    """Shape, start and end of a tensor, which must be natural numbers."""
    if len(name) > LONGEST_NAME:
        raise _fail(name, f"its name has more than {LONGEST_NAME} characters", where, error)
    if not isinstance(item, dict):
        raise _fail(name, "its entry is not an object", where, error)
    dtype, shape, span = item.get("dtype"), item.get("shape"), item.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _fail(name, f"unknown type {dtype!r:.40}", where, error)
    if (
        not isinstance(shape, list)
        or not isinstance(span, list)
        or len(shape) > MOST_AXES
        or len(span) != 2
    ):
        raise _fail(name, _MALFORMED, where, error)
    return shape + span


def _place(name: str, item: Any, base: int, where: str, error: type[StiError]) -> TensorInfo:
    """Where a tensor lies, of an entry whose numbers are natural."""
    dtype, shape, (start, end) = item["dtype"], item["shape"], item["data_offsets"]
    size = end - start
    if size < 0:
        raise _fail(name, _MALFORMED, where, error)
    if math.prod(shape) * ITEM_BYTES[dtype] != size:
        told = f"{dtype} {list(shape)!s:.80} does not fill its {size} bytes"
        raise _fail(name, told, where, error)
    return TensorInfo(dtype, tuple(shape), base + start, size)


def _fail(name: str, message: str, where: str, error: type[StiError]) -> StiError:
    return error(f"{where}: tensor {name!r:.80}: {message}")


def _are_naturals(values: list[Any]) -> bool:
    """Whether all are whole numbers from 0 on, of 63 bits."""
    return not values or (
        set(map(type, values)) == {int} and min(values) >= 0 and max(values) < 2**63
    )
