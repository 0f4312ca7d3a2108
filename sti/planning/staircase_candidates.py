"""Candidates of what is worth running: fidelities of every submodel, from Lagrange multipliers.

In: a manifest. Out: shard counts of some thousands of whole submodels. Each slice group takes the
option of least loss plus multiplier times cost. Costs are bytes, mostly work to decode, or both of
options that may be computed narrow; and the multiplier is tilted by position. What early groups
read cannot be hidden behind computation, so a machine bound by that reads least for
them; one bound by storage counts every group's bytes alike; between the two, and with a preload,
bytes up to some group count and later ones hardly do. Knows no machine. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sti.arrays import BoolArray, Float64Array, Int64Array, UInt16Array
from sti.device.lanes import PIPELINED
from sti.model.manifest import Manifest, SliceGroup, Submodel
from sti.planning.cost_model import RunCosts
from sti.planning.option_tables import OptionTables, tabulate
from sti.planning.plan import EXACT
from sti.planning.variants import NARROW_MOST_BITS

_WEIGHT = 0.25
"""What decoding a weight at few bits costs, where both count and a byte costs 1."""


class _Family(NamedTuple):
    """What counts in the cost of an option."""

    bytes_share: float
    decode_share: float
    narrow: bool
    """Whether only options that may be computed narrow are taken."""


_FAMILIES = (_Family(1.0, 0.0, False), _Family(0.15, 1.0, False), _Family(1.0, 1.0, True))
_MULTIPLIERS = 101
_DECADES = 6.5
"""Of multipliers, from the one at which every group takes the least fidelity."""
_STEP = _DECADES * math.log(10.0) / (_MULTIPLIERS - 1)
"""Logarithm of the factor between neighbouring multipliers."""
_STRIDE = 4
"""Of the multipliers, one in so many is tilted."""
_FEW = 6
"""Packs of no more submodels than that try every multiplier, others one in ``_STRIDE``."""
_ALL = 400
"""Submodels with no more fidelities than that have all of them as candidates."""
_NONE = 10 * _MULTIPLIERS


class Candidates(NamedTuple):
    """Fidelities of whole submodels, ``c`` of them."""

    submodel: Int64Array
    """``[c]``: place in the manifest's submodels."""
    counts: UInt16Array
    """``[c, groups, planes]``, as ``Staircases.counts``."""
    missing: Float64Array
    """``[c]``: gains of the planes that slices in use lack."""
    loss: Float64Array
    """``[c]``: expected loss with exact products."""
    uniform: BoolArray
    """``[c]``: whether all slices in use are at one fidelity."""


def candidates_of(manifest: Manifest) -> Candidates:
    """The candidates of all submodels."""
    widths = {submodel.width for submodel in manifest.submodels}
    picks = {width: _picks(manifest, width) for width in sorted(widths)}
    places = {
        (group.layer, group.kind, group.number): at for at, group in enumerate(manifest.groups)
    }
    stride = 1 if len(manifest.submodels) <= _FEW else _STRIDE
    parts = []
    for number, submodel in enumerate(manifest.submodels):
        found = picks[submodel.width]
        rows = [at for at, group in enumerate(found.groups) if group.layer in submodel.layers]
        chosen, uniform = _choices(found, rows, stride)
        missing = np.zeros(len(chosen))
        counts = np.zeros((len(chosen), len(manifest.groups), len(manifest.ladder)), np.uint16)
        for place, row in enumerate(rows):
            group, options = found.groups[row], chosen[:, place]
            missing += found.options.loss[row][options]
            own = places[group.layer, group.kind, group.number]
            counts[:, own] = found.counts[row][options]
        loss = _losses(submodel, missing)
        parts.append((np.full(len(chosen), number), counts, missing, loss, uniform))
    return Candidates(*(np.concatenate(part) for part in zip(*parts, strict=True)))


class _Picks(NamedTuple):
    """The options of a width's groups, and which of them are the cheapest."""

    groups: Sequence[SliceGroup]
    options: OptionTables
    counts: Sequence[Int64Array]
    """For each group ``[o, planes]``: shards to read."""
    best: Int64Array
    """``[groups, families, multipliers]``: options; multipliers fall, so that fidelities rise."""


def _picks(manifest: Manifest, width: int) -> _Picks:
    groups = [group for group in manifest.groups if group.first < width]
    options = tabulate(groups, width, _costs(manifest, width), {})
    planes, bits = np.arange(len(manifest.ladder)), np.array(manifest.ladder)
    fronts: list[tuple[Int64Array, Float64Array, Float64Array]] = []
    counts = []
    for row, (used, prefix) in enumerate(zip(options.used, options.prefix, strict=True)):
        counts.append(prefix[planes, used])
        usable = np.flatnonzero(np.isfinite(options.loss[row, : len(used)]))
        exact = (used[usable] > 0)[:, bits > NARROW_MOST_BITS].any(axis=1)
        loss = options.loss[row, usable]
        size, work = options.read_bytes[row, usable], options.decode_s[row, usable]
        for bytes_share, decode_share, only_narrow in _FAMILIES:
            cost = bytes_share * size + decode_share * work
            front = _front(cost, np.where(exact, np.inf, loss) if only_narrow else loss)
            fronts.append((usable[front], cost[front], loss[front]))
    steepest = max(
        (
            float(((loss[0] - loss[1:]) / (cost[1:] - cost[0])).max())
            for _, cost, loss in fronts
            if len(loss) > 1
        ),
        default=1.0,
    )
    multipliers = steepest * np.exp(0.05 - _STEP * np.arange(_MULTIPLIERS))
    best = [own[(loss + multipliers[:, None] * cost).argmin(axis=1)] for own, cost, loss in fronts]
    return _Picks(groups, options, counts, np.array(best).reshape(len(groups), len(_FAMILIES), -1))


def _costs(manifest: Manifest, width: int) -> RunCosts:
    """Costs of decoding, where a byte costs 1; more for more bits, as on most machines."""
    kinds = [kind.name for kind in manifest.kinds]
    return RunCosts(
        width=width,
        threads=PIPELINED,
        share_counts=dict.fromkeys(kinds, 1),
        request_s=0.0,
        bytes_per_s=1.0,
        shard_s=0.0,
        weight_s={bits: _WEIGHT * (0.5 + 0.09 * bits) for bits in manifest.ladder},
        tokenize_s=0.0,
        rows_s=0.0,
        embed_s=0.0,
        graph_s={kind: {EXACT: (0.0, 0.0)} for kind in kinds},
        variants=(EXACT,),
        connect_s=0.0,
        head_s=0.0,
        fixed_s=0.0,
    )


def _front(cost: Float64Array, loss: Float64Array) -> Int64Array:
    """The places of what no cheaper one beats in loss, the cheapest first."""
    order = np.lexsort((loss, cost))
    falling = loss[order]
    least = np.minimum.accumulate(falling)
    front: Int64Array = order[np.append(True, falling[1:] < least[:-1])]
    return front[np.isfinite(loss[front])]


def _choices(picks: _Picks, rows: Sequence[int], stride: int) -> tuple[Int64Array, BoolArray]:
    """Options of some groups together, ``[c, rows]``, each once, and which are uniform."""
    leads = np.array([picks.groups[row].number == 0 for row in rows])
    level = np.arange(0, _MULTIPLIERS, stride * _STRIDE)[:, None, None] + _tilts(leads)
    np.minimum(level, _MULTIPLIERS - 1, out=level)
    flat = np.arange(0, _MULTIPLIERS, stride)[:, None, None] + np.zeros(len(rows), np.int64)
    levels = np.concatenate((flat.reshape(-1, len(rows)), level.reshape(-1, len(rows))))
    found = [picks.best[row, :, levels[:, place]] for place, row in enumerate(rows)]
    chosen = np.stack(found, axis=-1).reshape(-1, len(rows))
    level_of = picks.options.uniform[:, rows]
    chosen = np.concatenate((chosen, level_of))
    usable = [np.flatnonzero(np.isfinite(picks.options.loss[row])) for row in rows]
    if math.prod(len(own) for own in usable) <= _ALL:
        every = np.array(np.meshgrid(*usable, indexing="ij")).reshape(len(rows), -1).T
        chosen = np.concatenate((chosen, every))
    chosen = np.unique(chosen, axis=0)
    uniform = (chosen[:, None] == level_of).all(axis=2).any(axis=1)
    return chosen, uniform


def _tilts(leads: BoolArray) -> Int64Array:
    """Multipliers down by so many at each position, ``[tilts, positions]``.

    Args:
        leads: whether each position is the first group of its block. Threads that share steps
            decode it while one of them connects the block before.
    """
    count = len(leads)
    place = np.arange(count)
    depth = place / max(1, count - 1)
    tilts = [depth * (fall / _STEP) for fall in (1.0, 2.5, 6.0)]
    tilts.append(np.where(place < 1, 0.0, 1.0 / _STEP))
    for first in sorted({1, *(max(1, round(count * share / 6)) for share in range(1, 6))}):
        tilts += [
            np.where(place < first, 0.0, fall) for fall in (math.log(4.0) / _STEP, float(_NONE))
        ]
    if not leads.all():
        tilts += [np.where(leads, fall / _STEP, 0.0) for fall in (1.0, 2.5, 6.0)]
    return np.unique(np.round(tilts).astype(np.int64), axis=0)


def _losses(submodel: Submodel, missing: Float64Array) -> Float64Array:
    """``Submodel.loss_at`` for many."""
    places = np.array(submodel.missing or (0.0,))
    values = np.array(submodel.losses or (submodel.loss,))
    several = len(places) > 1
    slope = (values[-1] - values[-2]) / (places[-1] - places[-2]) if several else 1.0
    beyond = np.maximum(missing - places[-1], 0.0)
    return np.asarray(np.interp(missing, places, values) + slope * beyond)
