"""Tensors and plain values in one file, to be read again without running anything.

In: dictionaries, lists, tuples, numbers, texts and tensors in one another. Out: a file with a JSON
header, the bytes of the tensors and a checksum of all of it; or the values again, if the checksum
matches. A reader takes no more memory than the file is long. Knows nothing of training.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, BinaryIO, NamedTuple

import torch

from sti.storage.json_input import JsonLimits, parse_json

_MAGIC = b"sti training state 1\n"
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_LIMITS = JsonLimits(1 << 26, 1 << 19, 64)
"""Of the header: some 10 values a tensor."""
_TYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class PackedValues(NamedTuple):
    """Values as they are written; tensors are those given, no copies."""

    header: bytes
    tensors: tuple[torch.Tensor, ...]

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return len(self.header) + _CHECKSUM_BYTES + sum(item.nbytes for item in self.tensors)

    def write(self, stream: BinaryIO) -> None:
        """Write the file.

        Raises:
            OSError: it cannot be written.
        """
        checksum = 0
        for part in self._parts():
            checksum = zlib.crc32(part, checksum)
            stream.write(part)
        stream.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))

    def _parts(self) -> Iterator[Any]:
        yield self.header
        for item in self.tensors:
            yield item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def pack_values(values: Mapping[str, Any]) -> PackedValues:
    """Lay out a file.

    Raises:
        TypeError: a value is of a kind that such files do not hold.
    """
    tensors: list[torch.Tensor] = []
    told = _told(dict(values), tensors)
    types = {dtype: name for name, dtype in _TYPES.items()}
    places = [[types[item.dtype], list(item.shape)] for item in tensors]
    text = json.dumps({"values": told, "tensors": places}).encode()
    return PackedValues(_MAGIC + len(text).to_bytes(_LENGTH_BYTES, "little") + text, (*tensors,))


def read_values(stream: BinaryIO) -> dict[str, Any]:
    """What ``PackedValues.write`` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError, LookupError, TypeError, AttributeError, RecursionError: it is no such file, or
            damaged.
    """
    left = os.fstat(stream.fileno()).st_size - _CHECKSUM_BYTES
    start = stream.read(len(_MAGIC) + _LENGTH_BYTES)
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    left -= len(start) + length
    if not start.startswith(_MAGIC) or length > _LIMITS.most_bytes or left < 0:
        raise ValueError("not such a file, or truncated")
    text = stream.read(length)
    checksum = zlib.crc32(text, zlib.crc32(start))
    document = parse_json(text, _LIMITS)
    tensors = []
    for name, shape in document["tensors"]:
        dtype = _TYPES[name]
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("a tensor of an impossible shape")
        left -= prod(shape) * dtype.itemsize
        if left < 0:
            raise ValueError("truncated")
        raw = torch.empty(prod(shape) * dtype.itemsize, dtype=torch.uint8)
        if stream.readinto(raw.numpy()) != len(raw):  # type: ignore[attr-defined]
            raise ValueError("truncated")
        checksum = zlib.crc32(raw.numpy().data, checksum)
        tensors.append(raw.view(dtype).reshape(shape))
    if left or stream.read() != checksum.to_bytes(_CHECKSUM_BYTES, "little"):
        raise ValueError("the checksum does not match")
    found = _read(document["values"], tensors.__getitem__)
    if not isinstance(found, dict):
        raise TypeError("no dictionary")
    return found


def _told(value: Any, tensors: list[torch.Tensor]) -> Any:
    """A value as JSON: containers say which kind they are, since JSON knows fewer."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, Mapping):
        return {"map": [[_told(key, tensors), _told(value[key], tensors)] for key in value]}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_told(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be kept")


def _read(told: Any, tensor: Callable[[int], torch.Tensor]) -> Any:
    if not isinstance(told, dict):
        return told
    ((kind, inner),) = told.items()
    if kind == "tensor":
        return tensor(inner)
    if kind == "map":
        return {_read(key, tensor): _read(value, tensor) for key, value in inner}
    items = [_read(item, tensor) for item in inner]
    return tuple(items) if kind == "tuple" else items
