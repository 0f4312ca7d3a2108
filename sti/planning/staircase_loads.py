"""What every staircase reads, decodes and computes at each of its positions, on any machine.

A position is a slice group of the submodel, in order of execution; submodels with fewer groups have
empty positions at the end. In: staircases and their manifest. Out: arrays ``[positions, c]``, made
once. The same bytes, requests and shards as ``sti.planning.prediction.loads_of`` counts for a plan.
Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from sti.arrays import BoolArray, Float64Array, Int64Array, UInt16Array
from sti.model.manifest import Manifest
from sti.planning.staircases import Staircases, used_slices
from sti.planning.variants import NARROW_MOST_BITS
from sti.storage.byte_ranges import MERGE_GAP

_NONE = -1.0
Array = TypeVar("Array", bound=NDArray[Any])


class Loads(NamedTuple):
    """What staircases ``c`` ask of lanes at positions ``n``. Not modified."""

    sizes: Float64Array
    """``[n, c]``: bytes, without a preload."""
    before: Float64Array
    """``[n, c]``: bytes of earlier positions."""
    requests: Float64Array
    """``[n, c]``: requests, without a preload."""
    breaks: Float64Array
    """``[planes, n, c]``: bytes before the request that starts with a plane (the first request
    aside), or less than nothing where none starts there."""
    work: Float64Array
    """``[1 + planes, n, c]``: slices in use, then weights that reach each plane."""
    used: Float64Array
    """``[n, c]``: slices in use."""
    filled: Float64Array
    """``[n, c]``: 1, or 0 for an empty position."""
    kind: Int64Array
    """``[n, c]``: place of the block's kind in the manifest, any for an empty position; ``[n, 1]``
    where all staircases agree."""
    ends: BoolArray
    """``[n, c]``: whether the group is the last of its block."""
    narrow: BoolArray
    """``[n, c]``: whether a machine with narrow products computes the group so."""
    some_end: list[bool]
    all_end: list[bool]
    """Of each position, whether some or all of its groups are the last of their blocks."""
    blocks: Int64Array
    """``[c]``."""
    read_bytes: Int64Array
    """``[c]``: bytes of all positions."""

    def left(self, preload_bytes: int) -> tuple[Float64Array, Float64Array]:
        """Bytes and requests that are left to read where so many leading bytes are held."""
        if not preload_bytes:
            return self.sizes, self.requests
        held = np.clip(preload_bytes - self.before, 0.0, self.sizes)
        left = self.sizes - held
        requests = np.where(left > 0.0, self.requests, 0.0)
        some = (held > 0.0) & (left > 0.0)
        place, column = np.nonzero(some)  # at most one position of each staircase
        if len(place):
            beyond = self.breaks[:, place, column] > held[place, column]
            requests[place, column] = 1 + beyond.sum(axis=0)
        return left, requests


def loads_of_all(manifest: Manifest, staircases: Staircases) -> Loads:
    """The loads of all staircases."""
    groups, kinds = manifest.groups, {kind.name: at for at, kind in enumerate(manifest.kinds)}
    counts = np.ascontiguousarray(staircases.counts.transpose(2, 1, 0))  # [planes, n, c]
    reached = _reached(manifest, counts)
    used = used_slices(manifest)
    sizes, requests, breaks = _reading(manifest, counts)
    weights = np.array([[float(group.shard_weights)] for group in groups])
    work = np.empty((1 + len(counts), *sizes.shape))
    work[0] = reached[0]
    np.multiply(reached, weights, out=work[1:])
    bits = np.array(manifest.ladder)
    above = reached[int(np.searchsorted(bits, NARROW_MOST_BITS, side="right")) :]
    narrow: BoolArray = ~np.any(above, axis=0)
    first = np.array([group.first for group in groups])
    widths = np.array([item.width for item in manifest.submodels])
    ends = (first + used == widths[:, None]) & (used > 0)
    kind = np.broadcast_to([kinds[group.kind] for group in groups], used.shape)
    own = staircases.submodel
    loads = Loads(
        sizes=sizes,
        before=sizes,
        requests=requests,
        breaks=breaks,
        work=work,
        used=work[0],
        filled=(work[0] > 0.0).astype(np.float64),
        kind=kind.T[:, own],
        ends=ends.T[:, own],
        narrow=narrow,
        some_end=[],
        all_end=[],
        blocks=ends.sum(axis=1)[own],
        read_bytes=sizes.sum(axis=0).astype(np.int64),
    )
    loads = loads if bool((used > 0).all()) else _compacted(loads, used, own)
    some: list[bool] = np.any(loads.ends, axis=1).tolist()
    whole: list[bool] = np.all(loads.ends, axis=1).tolist()
    loads = loads._replace(before=np.cumsum(loads.sizes, axis=0) - loads.sizes)
    fewest = np.where(loads.filled > 0.0, loads.kind, len(kinds)).min(axis=1, keepdims=True)
    if bool(((loads.kind == fewest) | (loads.filled == 0.0)).all()):
        loads = loads._replace(kind=np.minimum(fewest, len(kinds) - 1))
    return loads._replace(some_end=some, all_end=whole)


def _compacted(loads: Loads, used: UInt16Array, own: Int64Array) -> Loads:
    """The loads with the groups of each submodel first, then empty positions."""
    order = np.argsort(used == 0, axis=1, kind="stable")  # [submodels, n]
    flat = order.T[:, own] * len(own) + np.arange(len(own))

    def moved(array: Array) -> Array:
        rows = array.reshape(-1, flat.size)
        return cast(Array, rows[:, flat.ravel()].reshape(array.shape))

    work = moved(loads.work)
    return loads._replace(
        sizes=moved(loads.sizes),
        requests=moved(loads.requests),
        breaks=moved(loads.breaks),
        work=work,
        used=work[0],
        filled=moved(loads.filled),
        kind=moved(loads.kind),
        ends=moved(loads.ends),
        narrow=moved(loads.narrow),
    )


def _reached(manifest: Manifest, counts: UInt16Array) -> UInt16Array:
    """``[planes, n, c]``: slices in use that have every plane up to each."""
    groups, planes, longest = manifest.groups, len(counts), max(g.slices for g in manifest.groups)
    rank = np.full((planes, longest, len(groups)), np.iinfo(counts.dtype).max, counts.dtype)
    for number, group in enumerate(groups):
        for plane, found in enumerate(group.planes):
            rank[plane, list(found.order), number] = range(group.slices)
    present = np.ones((longest, *counts.shape[1:]), bool)
    reached = np.empty(counts.shape, counts.dtype)
    for plane in range(planes):
        present &= rank[plane, :, :, None] < counts[plane]
        np.sum(present, axis=0, dtype=counts.dtype, out=reached[plane])
    return reached


def _reading(
    manifest: Manifest, counts: UInt16Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """``Loads.sizes``, ``requests`` and ``breaks``: ``group_ranges`` of all at once."""
    groups = manifest.groups
    longest = max(group.slices for group in groups)
    lists = np.zeros((len(groups), longest + 1))
    for row, group in zip(lists, groups, strict=True):
        row[1 : 1 + group.slices] = np.cumsum(group.outlier_bytes)
        row[1 + group.slices :] = row[group.slices]
    end = np.take_along_axis(lists, counts[0].astype(np.int64), axis=1)
    start = lists[:, -1:].copy()
    slices = np.array([[float(group.slices)] for group in groups])
    total, requests = end.copy(), (end > 0.0).astype(np.float64)
    breaks = np.full((len(counts), *end.shape), _NONE)
    for plane, count in enumerate(counts):
        shard = np.array([[float(group.planes[plane].shard_bytes)] for group in groups])
        size, read, gap = count * shard, count > 0, start - end
        merged = read & (requests > 0.0) & (gap <= MERGE_GAP)
        fresh = read & ~merged
        np.copyto(breaks[plane], total, where=fresh & (requests > 0.0))
        total += size
        total += merged * gap
        requests += fresh
        end = np.where(read, start + size, end)
        start += shard * slices
    return total, requests, breaks
