"""The weights of a pack, decoded shard by shard from its bytes."""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np

from sti.codec.codebook import Codebook
from sti.codec.decoder import NumpyDecoder
from sti.codec.pieces import SHARD
from sti.pack.content_hash import pieces_of
from sti.pack.pack_reader import PackReader
from tests.support.groups import rooms_for


def shard(reader: PackReader, layer: int, kind: str, slice_: int, planes: int) -> np.ndarray:
    """One shard at the fidelity of its first ``planes`` planes, flat int8.

    ``slice_`` is counted in the block.
    """
    group = next(
        group
        for group in reader.manifest.block(layer, kind)
        if group.first <= slice_ < group.first + group.slices
    )
    data = np.frombuffer(reader.read(reader.group_offset(group), group.length), np.uint8)
    record = np.zeros(1, SHARD)
    record["planes"] = planes
    for piece in pieces_of(group):
        if piece.slice == slice_ - group.first and piece.plane <= planes:
            assert crc32(data[piece.start : piece.start + piece.length]) == piece.checksum
            stored = (0, piece.length, piece.start, piece.checksum, 0)
            record["pieces"][0, piece.plane] = stored
    sizes = [math.prod(operand.shape) for operand in reader.manifest.kind(kind).operands]
    operands = rooms_for(sizes, 1, np.int8)
    decoder = NumpyDecoder(Codebook.from_json(reader.manifest.codebook))
    fault = decoder.decode(data, np.zeros(1, np.uint64), record, operands)
    assert fault is None
    return np.concatenate([room.matrix[0] for room in operands])


def operand(reader: PackReader, layer: int, kind: str, name: str, planes: int) -> np.ndarray:
    """One operand of all slices, ``[parts, rows, columns]``."""
    start = 0
    shape: tuple[int, ...] = (0,)
    for item in reader.manifest.kind(kind).operands:
        if item.name == name:
            shape = item.shape
            break
        start += math.prod(item.shape)
    slices = [
        shard(reader, layer, kind, index, planes)[start : start + math.prod(shape)]
        for index in range(reader.manifest.dimensions.slices)
    ]
    return np.concatenate(slices).reshape(-1, *shape[-2:])


def float_operand(reader: PackReader, layer: int, kind: str, name: str, planes: int) -> np.ndarray:
    """The same with scales and side weights."""
    base = f"layer.{layer}.{kind}.{name}"
    weights = operand(reader, layer, kind, name, planes) * reader.resident(f"{base}_scale")
    side = {item.name: item for item in reader.manifest.kind(kind).side}
    if name in side:
        index, missed = reader.resident(f"{base}_idx"), reader.resident(f"{base}_w")
        if side[name].channels_per_slice:
            flat = weights.reshape(-1, weights.shape[-1])
            flat[index] += missed
        else:
            weights[:, index] += missed
    return np.asarray(weights)
