"""Every staircase of every block of a submodel, as tables: loss, bytes, requests, decode time.

A staircase says how many slices in use reach each plane; it never rises from a plane to the next.
Knows nothing of targets, time limits or preloads.
In: blocks of the manifest, decode and storage costs. Out: arrays ``[blocks, options]`` that the
search reads. Pure. The bytes and requests are those of ``sti.reads``, for all options at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb

import numpy as np
from numpy.typing import NDArray

from sti.costs import RunCosts
from sti.manifest import Block
from sti.reads import MERGE_GAP
from sti.simulate import rounds_s

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_OPTIONS = 5000
"""Staircases looked at per block. 12 slices in 5 planes have 1,820, 16 slices 4,845; beyond, the
counts are taken from an evenly thinned set."""


@dataclass(frozen=True, slots=True)
class Options:
    """Tables over blocks ``n`` and staircases ``o``. Not modified; safe to share."""

    used: Ints
    """``[o, planes]``: slices in use that each plane reaches."""
    prefix: Ints
    """``[n, planes, width + 1]``: shards to read of a plane to reach that many slices in use."""
    loss: Floats
    """``[n, o]``; infinite where the last shard of some plane is read for nothing."""
    decode_s: Floats
    """``[n, o]``, on all decode threads."""
    read_bytes: Ints
    """``[n, o]``, before any preload."""
    requests: Ints
    """``[n, o]``."""
    breaks: tuple[Ints, ...]
    """For each plane ``[n, o]``: bytes in front of the request, other than the first, that starts
    with it, or more than any block has where none does."""

    @property
    def largest_loss(self) -> Floats:
        """``[n]``: the largest finite loss of each block."""
        return np.asarray(np.max(self.loss, axis=1, where=np.isfinite(self.loss), initial=0.0))

    def counts(self, block: int, option: int) -> tuple[int, ...]:
        """The shard counts of a staircase, as a plan states them."""
        return tuple(
            int(self.prefix[block, plane, used]) for plane, used in enumerate(self.used[option])
        )


def tabulate(blocks: Sequence[Block], width: int, costs: RunCosts) -> Options:
    """The tables for ``blocks`` run with their first ``width`` slices."""
    used = staircases(width, len(blocks[0].planes))
    prefix = np.array([[_prefix(p.order, width) for p in b.planes] for b in blocks], np.int64)
    loss, decode_s = _quality(blocks, used, width, costs)
    read_bytes, requests, breaks = _reading(blocks, used, prefix, width)
    return Options(used, prefix, loss, decode_s, read_bytes, requests, breaks)


@lru_cache(maxsize=32)
def staircases(width: int, planes: int) -> Ints:
    """All falling counts ``[o, planes]`` that start with ``width``, or an even choice of them."""
    levels = width + 1
    while comb(levels + planes - 2, planes - 1) > MOST_OPTIONS and levels > 2:
        levels -= 1
    heights = sorted({round(i * width / (levels - 1)) for i in range(levels)}, reverse=True)
    falling = combinations_with_replacement(heights, planes - 1)
    table = np.array([(width, *rest) for rest in falling], np.int64)
    table.flags.writeable = False
    return table


def _prefix(order: Sequence[int], width: int) -> list[int]:
    """How many shards to read to have 0, 1, ... ``width`` slices below ``width``."""
    return [0, *(place + 1 for place, index in enumerate(order) if index < width)]


def _quality(
    blocks: Sequence[Block], used: Ints, width: int, costs: RunCosts
) -> tuple[Floats, Floats]:
    """Loss and decode seconds ``[n, o]``: which slices have all planes up to each."""
    kept = [[[i for i in p.order if i < width] for p in b.planes] for b in blocks]
    order = np.array(kept, np.int64)  # [n, planes, width]
    rank = np.argsort(order, axis=2)
    gains = np.array([[p.gains[:width] for p in b.planes] for b in blocks])
    weights = np.array([[block.shard_weights] for block in blocks])
    bits = [plane.bits for plane in blocks[0].planes]
    present = np.ones((len(blocks), len(used), width), bool)
    loss = np.zeros(present.shape[:2])
    work_s = width * (costs.shard_s + weights * costs.weight_s[bits[0]]) + loss
    for plane in range(1, len(bits)):
        reach = used[None, :, plane, None]
        present &= rank[:, plane, None, :] < reach
        loss += np.matmul(~present, gains[:, plane, :, None])[:, :, 0]
        step_s = costs.weight_s[bits[plane]] - costs.weight_s[bits[plane - 1]]
        work_s += np.count_nonzero(present, axis=2) * (weights * step_s)
        last = np.take(order[:, plane], np.maximum(used[:, plane] - 1, 0), axis=1)
        useful = np.take_along_axis(present, last[:, :, None], axis=2)[:, :, 0]
        loss[~useful & (used[:, plane] > 0)] = np.inf
    return loss, work_s * rounds_s(1.0, width, costs.threads)


def _reading(
    blocks: Sequence[Block], used: Ints, prefix: Ints, width: int
) -> tuple[Ints, Ints, tuple[Ints, ...]]:
    """Bytes, requests and breaks ``[n, o]``: ``reads.block_ranges`` for all options at once."""

    def column(values: list[int]) -> Ints:
        return np.array(values, np.int64)[:, None]

    end = column([sum(block.outlier_bytes[:width]) for block in blocks])
    start = column([sum(block.outlier_bytes) for block in blocks])
    total, requests = end, (end > 0).astype(np.int64)
    breaks = []
    for plane in range(used.shape[1]):
        count = prefix[:, plane, used[:, plane]]
        shard_bytes = column([block.planes[plane].shard_bytes for block in blocks])
        gap = start - end
        read = count > 0
        merged = read & (requests > 0) & (gap <= MERGE_GAP)
        fresh = read & ~merged
        breaks.append(np.where(fresh & (requests > 0), total, np.iinfo(np.int64).max))
        total = total + np.where(read, count * shard_bytes, 0) + np.where(merged, gap, 0)
        requests = requests + fresh
        end = np.where(read, start + count * shard_bytes, end)
        start = start + shard_bytes * len(blocks[0].outlier_bytes)
    return total, requests, tuple(breaks)
