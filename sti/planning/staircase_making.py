"""Finds the fidelities of a pack that are worth running on some machine.

Purpose: what needs no knowledge of the machine is done once for each pack. In: a manifest. Out:
``Staircases``, the same for the same manifest. Takes about a tenth of a second, so it is done when
a pack is ranked, or when it is opened for the first time. Pure.

Candidates come from Lagrange multipliers (``sti.planning.staircase_candidates``). Each of a few
reference machines, from slow to fast storage and decoding, with and without a preload and narrow
products, names for every level of loss the candidate that is the fastest on it. Those named are
kept, together with every uniform fidelity, so that a run as fast as can be is always among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sti.arrays import Float64Array, Int64Array, UInt16Array
from sti.device.lane_profiles import (
    COMPUTE_TERMS,
    ComputeProfile,
    DecodeProfile,
    RunProfile,
    StorageProfile,
)
from sti.device.lanes import COMPUTE, DECODE, LANES, PIPELINED, STORAGE, shared
from sti.device.profile import DeviceProfile
from sti.model.fidelity import fidelities
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.plan import NARROW
from sti.planning.pricing import PriceList
from sti.planning.staircase_candidates import Candidates, candidates_of
from sti.planning.staircases import Staircases
from sti.planning.variants import NARROW_MOST_BITS, graph_name, rounding_loss

MOST = 512
"""Staircases kept of a pack of few slice groups."""
_MOST_CELLS, _LEAST = 12_288, 128
"""Staircases times slice groups, so that packs of many groups are priced as fast; and the fewest
that are kept all the same."""
_STEP = 0.0015
"""Between two levels of a metric from 0 to 1: less than anybody notices."""
_LEVELS = 200
"""Levels where no metric was measured: of equal shares of the loss."""


class _Machine(NamedTuple):
    """A reference machine: seconds of its lanes, as shares of those that products take."""

    storage: float
    """Of reading the whole model at the top of the ladder."""
    decode: float
    """Of decoding all of it at the lowest fidelity."""
    preload: float
    """Bytes held, as a share of the model's."""
    narrow: bool


_MACHINES = (
    _Machine(0.05, 0.3, 0.0, False),
    _Machine(0.05, 2.0, 0.0, True),
    _Machine(0.5, 0.1, 0.0, False),
    _Machine(0.5, 0.6, 0.0, True),
    _Machine(1.5, 0.3, 0.0, False),
    _Machine(1.5, 0.3, 0.15, True),
    _Machine(4.0, 0.2, 0.0, True),
    _Machine(4.0, 0.2, 0.15, False),
    _Machine(15.0, 0.3, 0.0, False),
    _Machine(15.0, 0.3, 0.4, True),
)
_TIE = 1e-9
"""Times that differ by less than this share are sums in another order."""
_WORKLOAD = Workload(1, 1)
_WEIGHT_S = 1e-9
"""Seconds that products take for each weight."""
_NARROW = 0.65
"""What narrow products take of that."""
_REQUEST = 0.002
"""Seconds of a request, as a share of the whole model's."""


def make_staircases(manifest: Manifest) -> Staircases:
    """The staircases of a pack, by falling loss."""
    found = candidates_of(manifest)
    most = max(_LEAST, min(MOST, _MOST_CELLS // len(manifest.groups)))
    kept = _worth(manifest, found, most)
    kept = kept[np.argsort(-found.loss[kept], kind="stable")]
    counts, submodel = found.counts[kept], found.submodel[kept]
    loss = found.loss[kept]
    missing = found.missing[kept] + _rounded(manifest, counts)
    owners = [manifest.submodels[own] for own in submodel.tolist()]
    narrow_loss = [own.loss_at(lost) for own, lost in zip(owners, missing.tolist(), strict=True)]
    return Staircases(submodel, counts, loss, np.maximum(narrow_loss, loss))


def _worth(manifest: Manifest, found: Candidates, most: int) -> Int64Array:
    """The places of the candidates to keep."""
    made = Staircases(found.submodel, found.counts, found.loss, found.loss)
    prices = PriceList(manifest, made)
    order = np.argsort(found.loss, kind="stable")
    loss = found.loss[order]
    fronts = []
    for machine in _MACHINES:
        profile, preload_bytes = _reference(manifest, machine)
        total_s = prices.price(profile, _WORKLOAD, preload_bytes).total_s
        for each_s in total_s[:, order]:
            least_s = np.minimum.accumulate(each_s)
            fronts.append(np.flatnonzero(np.append(True, each_s[1:] < (1.0 - _TIE) * least_s[:-1])))
    levels = _levels(manifest, loss)
    stride = 1
    while True:
        kept = found.uniform.copy()
        for front in fronts:
            asked = np.searchsorted(loss[front], levels[::stride], side="right") - 1
            kept[order[front[np.maximum(asked, 0)]]] = True
        if np.count_nonzero(kept) <= most or stride >= len(levels):
            return np.flatnonzero(kept)
        stride += 1


def _levels(manifest: Manifest, loss: Float64Array) -> Float64Array:
    """Losses, ascending, between which a difference is noticed. ``loss``: ascending."""
    quality = manifest.quality
    if quality is None:
        return np.asarray(np.linspace(0.0, 1.0, _LEVELS + 1) ** 2 * loss[-1])
    # Where the metric is flat, losses are told apart as well, if more coarsely.
    fallen = quality.values[0] - np.array(quality.values)
    fallen += _STEP * np.arange(len(fallen))
    found = np.interp(np.arange(0.0, fallen[-1], _STEP), fallen, np.array(quality.losses))
    return np.asarray(np.unique(np.concatenate(([0.0], found, [loss[-1]]))))


def _reference(manifest: Manifest, machine: _Machine) -> tuple[DeviceProfile, int]:
    """The profile of a reference machine for this model, and its preload in bytes."""
    weights = sum(group.shard_weights * group.slices for group in manifest.groups)
    stored = sum(group.length for group in manifest.groups)
    whole_s = weights * _WEIGHT_S
    least, top = manifest.ladder[0], manifest.ladder[-1]
    slope = 1.0 / max(1, top - least)
    weight_s = {
        bits: machine.decode * _WEIGHT_S * (1.0 + slope * (bits - least))
        for bits in manifest.ladder
    }
    graphs = {"embed": (0.02 * whole_s, 0.0), "connect": (0.0, 0.0), "head": (0.0, 0.0)}
    for kind in manifest.kinds:
        slice_s = kind.shard_weights * _WEIGHT_S
        own = [group.slices for group in manifest.groups if group.kind == kind.name]
        call_s = 0.1 * slice_s * sum(own) / len(own)
        graphs[kind.name] = (call_s, slice_s)
        if machine.narrow:
            graphs[graph_name(kind.name, NARROW)] = (call_s, _NARROW * slice_s)
    rest = (0.0,) * (COMPUTE_TERMS - 2)
    profile = DeviceProfile(
        device="reference",
        threads=2,
        lanes={
            STORAGE: StorageProfile(
                True, _REQUEST * whole_s, stored / (machine.storage * whole_s), 0.0
            ),
            DECODE: DecodeProfile(0.0, weight_s),
            COMPUTE: ComputeProfile({name: (*two, *rest) for name, two in graphs.items()}),
        },
        runs={
            threads.name: RunProfile(dict.fromkeys(LANES, 1.0), 0.0, 0.0, 1.0)
            for threads in (PIPELINED, shared(2))
        },
        tokenize_s=0.0,
    )
    return profile, round(machine.preload * stored)


def _rounded(manifest: Manifest, counts: UInt16Array) -> Float64Array:
    """What rounding adds to the missing gains of each staircase where groups may be narrow."""
    shares = rounding_loss(manifest)
    lost = np.zeros(len(counts))
    for number, group in enumerate(manifest.groups):
        rows, inverse = np.unique(counts[:, number], axis=0, return_inverse=True)
        each = [_lost(group, tuple(row), shares) for row in rows.tolist()]
        lost += np.array(each)[inverse.ravel()]
    return lost


def _lost(group: SliceGroup, counts: tuple[int, ...], shares: Mapping[int, float]) -> float:
    """What a group loses by narrow products; nothing where it is exact or not run."""
    bits = fidelities(group, counts)
    if not counts[0] or max(bits) > NARROW_MOST_BITS:
        return 0.0
    lost = 0.0
    for place, own in enumerate(bits[: counts[0]]):
        lost += shares[own] * sum(p.gains[place] for p in group.planes if p.bits > own)
    return lost
