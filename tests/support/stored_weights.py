"""The weights of a pack, decoded from its bytes by hand."""

from __future__ import annotations

import math

import numpy as np

from sti.codec.codebook import Codebook
from sti.codec.decoder import Decoder
from sti.model.manifest import Block
from sti.pack.pack_reader import PackReader


def shard(reader: PackReader, block: Block, slice_: int, planes: int) -> np.ndarray:
    """One shard decoded from the pack's bytes."""
    data = np.fromfile(reader.path, np.uint8)[reader.block_offset(block.tensor) :]
    at = sum(block.outlier_bytes[:slice_])
    outliers = data[at : at + block.outlier_bytes[slice_]]
    start, pieces = sum(block.outlier_bytes), []
    for plane in block.planes[:planes]:
        at = start + plane.order.index(slice_) * plane.shard_bytes
        pieces.append(data[at : at + plane.shard_bytes])
        start += plane.shard_bytes * len(plane.order)
    decoder = Decoder(Codebook.from_json(reader.manifest.codebook))
    out = np.empty(block.shard_weights, np.int8)
    decoder.decode(pieces, outliers, out)
    return out


def operand(reader: PackReader, block: Block, name: str, planes: int) -> np.ndarray:
    """One operand of all slices, ``[parts, rows, columns]``."""
    kind = reader.manifest.kind(block.kind)
    start = 0
    shape: tuple[int, ...] = (0,)
    for item in kind.operands:
        if item.name == name:
            shape = item.shape
            break
        start += math.prod(item.shape)
    slices = [
        shard(reader, block, index, planes)[start : start + math.prod(shape)]
        for index in range(reader.manifest.dimensions.slices)
    ]
    return np.concatenate(slices).reshape(-1, *shape[-2:])


def float_operand(reader: PackReader, block: Block, name: str, planes: int) -> np.ndarray:
    """The same with scales and side weights."""
    base = f"layer.{block.layer}.{block.kind}.{name}"
    weights = operand(reader, block, name, planes) * reader.resident(f"{base}_scale")
    side = {item.name: item for item in reader.manifest.kind(block.kind).side}
    if name in side:
        index, missed = reader.resident(f"{base}_idx"), reader.resident(f"{base}_w")
        if side[name].channels_per_slice:
            flat = weights.reshape(-1, weights.shape[-1])
            flat[index] += missed
        else:
            weights[:, index] += missed
    return np.asarray(weights)
