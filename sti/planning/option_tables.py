"""Every staircase of every group of a submodel, as tables: loss, bytes, requests, times.

A *staircase* says how many of the slices in use reach each plane, and never rises from one plane to
the next. Knows nothing of targets, time limits or preloads. In: groups of the manifest, decode and
storage costs. Out: arrays ``[groups, options]`` that the search reads. Pure. The bytes and requests
equal those of ``sti.model.group_layout``, computed for all options at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np

from sti.arrays import BoolArray, Float64Array, Int64Array
from sti.model.manifest import SliceGroup
from sti.planning.cost_model import RunCosts
from sti.planning.plan import NARROW
from sti.planning.variants import variant_of
from sti.storage.byte_ranges import MERGE_GAP

MOST_OPTIONS = 5000
"""Staircases considered per group. 3 slices in 5 planes have 35, 12 have 1,820, 16 have 4,845;
where there are more, an evenly thinned set of counts is used."""


@dataclass(frozen=True, slots=True)
class OptionTables:
    """Tables over groups ``n`` and staircases ``o``. Not modified; safe to share.

    Groups with fewer slices in use have fewer staircases. In arrays ``[n, o]``, what is left of
    their rows is the first one again, at infinite loss; what is a sequence over groups has arrays
    of their own length.
    """

    used: Sequence[Int64Array]
    """For each group ``[o, planes]``: slices in use that each plane reaches."""
    prefix: Sequence[Int64Array]
    """For each group ``[planes, width + 1]``: shards to read of a plane to reach that many slices
    in use."""
    loss: Float64Array
    """``[n, o]``; infinite where another staircase reaches the same with fewer shards."""
    decode_s: Float64Array
    """``[n, o]``."""
    compute_s: Float64Array
    """``[n, o]``, without ``connect``; differs between options where some are narrow."""
    read_bytes: Int64Array
    """``[n, o]``, before any preload."""
    requests: Int64Array
    """``[n, o]``."""
    breaks: Sequence[Sequence[Int64Array]]
    """For each group and plane ``[o]``: bytes before the request that starts with it (the first
    request aside), or more than any group has where no request starts there."""
    uniform: Int64Array
    """``[planes, n]``: the staircase that brings all slices in use to the fidelity of a plane."""

    @property
    def largest_loss(self) -> Float64Array:
        """``[n]``: the largest finite loss of each group."""
        return np.asarray(np.max(self.loss, axis=1, where=np.isfinite(self.loss), initial=0.0))

    def counts(self, group: int, option: int) -> tuple[int, ...]:
        """The shard counts of a staircase, as a plan states them."""
        return tuple(
            int(self.prefix[group][plane, used])
            for plane, used in enumerate(self.used[group][option])
        )


def tabulate(
    groups: Sequence[SliceGroup], width: int, costs: RunCosts, rounding: Mapping[int, float]
) -> OptionTables:
    """The tables for ``groups``, run with the first ``width`` slices of their blocks.

    Args:
        rounding: what narrow products lose (``sti.planning.variants.rounding_loss``); needed where
            the machine has them.
    """
    count, planes = len(groups), len(groups[0].planes)
    widths = [group.used(width) for group in groups]
    longest = len(_used(max(widths), planes)[0])
    used: list[Int64Array] = [_used(each, planes)[0] for each in widths]
    uniform = np.array([_used(each, planes)[1] for each in widths]).T
    prefix: list[Int64Array] = [np.empty(0, np.int64)] * count
    breaks: list[Sequence[Int64Array]] = [()] * count
    loss = np.full((count, longest), np.inf)
    decode_s, compute_s = np.empty((2, count, longest))
    read_bytes, requests = np.empty((2, count, longest), np.int64)
    for each in set(widths):  # groups alike in tables of their own, which are then put together
        rows = [row for row, found in enumerate(widths) if found == each]
        alike = [groups[row] for row in rows]
        growth, options = staircases(each, planes), len(_used(each, planes)[0])
        reach = np.array([[_prefix(p.order, each) for p in g.planes] for g in alike], np.int64)
        loss[rows, :options], decodes, lost = _quality(alike, growth, each, costs, rounding)
        narrow = _narrow(alike[0], each, costs.variants)
        loss[rows, :options] += np.where(narrow, lost, 0.0)
        exact_s, narrow_s = (
            np.array([costs.compute_s(group, variant) for group in alike])[:, None]
            for variant in (costs.variants[0], costs.variants[-1])
        )
        computes = np.where(narrow, narrow_s, exact_s)
        sizes, counts, starts = _reading(alike, growth, reach, each)
        for table, found in (
            (decode_s, decodes),
            (compute_s, computes),
            (read_bytes, sizes),
            (requests, counts),
        ):
            table[rows, :options] = found
            table[rows, options:] = found[:, :1]
        for place, row in enumerate(rows):
            prefix[row] = reach[place]
            breaks[row] = [start[place] for start in starts]
    return OptionTables(
        used, prefix, loss, decode_s, compute_s, read_bytes, requests, breaks, uniform
    )


@lru_cache(maxsize=32)
def _used(width: int, planes: int) -> tuple[Int64Array, Int64Array]:
    """``OptionTables.used`` and ``uniform`` of a group with ``width`` slices in use."""
    used = np.full((1, 1), width)
    for parent, reach in staircases(width, planes):
        used = np.column_stack((used[parent], reach))
    reaches = width * np.tri(planes, dtype=np.int64)
    return used, (used == reaches[:, None]).all(axis=2).argmax(axis=1)


@lru_cache(maxsize=32)
def staircases(width: int, planes: int) -> tuple[tuple[Int64Array, Int64Array], ...]:
    """All falling counts that start with ``width``, or an even choice, plane after plane.

    For each plane but the first ``(parent, reach)``, an entry a staircase up to that plane: the
    staircase of the planes below that it adds to, and the slices in use that the plane reaches.
    The first staircase is the highest.
    """
    levels = width + 1
    while comb(levels + planes - 2, planes - 1) > MOST_OPTIONS and levels > 2:
        levels -= 1
    heights = np.array(sorted({round(i * width / (levels - 1)) for i in range(levels)}))[::-1]
    level = np.zeros(1, np.int64)
    growth = []
    for _ in range(1, planes):
        parent = np.repeat(np.arange(len(level)), len(heights) - level)
        level = np.concatenate([np.arange(lowest, len(heights)) for lowest in level])
        growth.append((parent, heights[level]))
    return tuple(growth)


def _prefix(order: Sequence[int], width: int) -> Sequence[int]:
    """How many shards to read to have 0, 1, ... ``width`` slices below ``width``."""
    if len(order) == width:
        return range(width + 1)
    return [0, *(place + 1 for place, index in enumerate(order) if index < width)]


def _quality(
    groups: Sequence[SliceGroup],
    growth: Sequence[tuple[Int64Array, Int64Array]],
    width: int,
    costs: RunCosts,
    rounding: Mapping[int, float],
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Loss, decode seconds, and what rounding adds to the loss, ``[n, o]``.

    They follow from which slices have all planes up to each.
    """
    kept = [
        [p.order if len(p.order) == width else [i for i in p.order if i < width] for p in g.planes]
        for g in groups
    ]
    order = np.array(kept, np.int64)  # [n, planes, width]
    rank = np.argsort(order, axis=2)
    gains = np.array([[p.gains[:width] for p in g.planes] for g in groups])
    weights = np.array([[group.shard_weights] for group in groups])
    bits = [plane.bits for plane in groups[0].planes]
    present = np.ones((len(groups), 1, width), bool)
    loss, idle = np.zeros((len(groups), 1)), np.zeros((len(groups), 1), bool)
    # Of a shard that has all planes up to one: what rounding loses of all planes above it.
    above = gains.sum(axis=1, keepdims=True) - np.cumsum(gains, axis=1)
    lost_by = above * np.array([rounding.get(each, 0.0) for each in bits])[:, None]
    lost = lost_by[:, 0].sum(axis=1, keepdims=True)
    height = np.array([width])
    work_s = width * (costs.shard_s + weights * costs.weight_s[bits[0]])
    for plane, (parent, reach) in enumerate(growth, start=1):
        present = present[:, parent] & (rank[:, plane, None] < reach[:, None])
        loss = loss[:, parent] + np.matmul(~present, gains[:, plane, :, None])[:, :, 0]
        step_s = costs.weight_s[bits[plane]] - costs.weight_s[bits[plane - 1]]
        work_s = work_s[:, parent] + np.count_nonzero(present, axis=2) * (weights * step_s)
        more = (lost_by[:, plane] - lost_by[:, plane - 1])[:, :, None]
        lost = lost[:, parent] + (
            np.matmul(present, more)[:, :, 0] if bits[plane] in rounding else 0
        )
        # A plane's last shard that lacks a lower plane is useless, unless the next plane reaches as
        # far: such options are dropped.
        loss[idle[:, parent] & (reach < height[parent])] = np.inf
        last = order[:, plane, np.maximum(reach - 1, 0)]
        idle = ~np.take_along_axis(present, last[:, :, None], axis=2)[:, :, 0] & (reach > 0)
        height = reach
    loss[idle] = np.inf
    shares = np.array([[costs.largest_share(group)] for group in groups])
    return loss, work_s * shares, lost


def _narrow(group: SliceGroup, width: int, variants: Sequence[str]) -> BoolArray:
    """Whether each staircase ``[o]`` of a group with ``width`` slices in use is computed narrow."""
    bits = np.array([plane.bits for plane in group.planes])
    highest = np.where(_used(width, len(bits))[0] > 0, bits, 0).max(axis=1)
    narrow = {each: variant_of([each], variants) == NARROW for each in bits.tolist()}
    return np.array([narrow[each] for each in highest.tolist()])


def _reading(
    groups: Sequence[SliceGroup],
    growth: Sequence[tuple[Int64Array, Int64Array]],
    prefix: Int64Array,
    width: int,
) -> tuple[Int64Array, Int64Array, tuple[Int64Array, ...]]:
    """Bytes, requests and breaks ``[n, o]``: ``group_ranges`` for all options at once."""

    def column(values: list[int]) -> Int64Array:
        return np.array(values, np.int64)[:, None]

    end = column([sum(group.outlier_bytes[:width]) for group in groups])
    start = column([sum(group.outlier_bytes) for group in groups])
    slices = column([group.slices for group in groups])
    total, requests = end, (end > 0).astype(np.int64)
    breaks: list[Int64Array] = []
    first = (np.zeros(1, np.int64), np.array([width]))
    for plane, (parent, reach) in enumerate((first, *growth)):
        total, requests, end = total[:, parent], requests[:, parent], end[:, parent]
        count = prefix[:, plane, reach]
        shard_bytes = column([group.planes[plane].shard_bytes for group in groups])
        gap, read = start - end, count > 0
        merged = read & (requests > 0) & (gap <= MERGE_GAP)
        fresh = read & ~merged
        never = np.iinfo(np.int64).max
        breaks = [earlier[:, parent] for earlier in breaks]
        breaks.append(np.where(fresh & (requests > 0), total, never))
        total = total + np.where(read, count * shard_bytes, 0) + np.where(merged, gap, 0)
        requests = requests + fresh
        end = np.where(read, start + count * shard_bytes, end)
        start = start + shard_bytes * slices
    return total, requests, tuple(breaks)
