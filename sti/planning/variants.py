"""How the products of a step are computed, and what narrow products cost in quality. Pure.

Narrow products (``sti.planning.plan.NARROW``) halve each decoded weight and round to 7 bits, up or
down as keeps the mean of all (``sti.codec.halves``). On processors that otherwise compute exact
products in pieces this is faster, and at few bits it loses little: the code's own error is much
larger. In: fidelities, a codebook, a profile. Out: the variant of a step, and the loss that
rounding adds.

The loss that it adds is estimated from the loss of the planes that a shard lacks, which was
measured. Both come from errors of weights, and for small errors loss grows with their squares. So
for a shard of b bits

    added loss = (E[(w - 2 h)^2] / E[(w - v)^2] - 1) * gains of the planes it lacks

where v is the value that stands for the weight w at b bits, the nearest of the codebook, and h its
half; w is distributed as ``sti.codec.halves`` assumes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from sti.codec.codebook import Codebook
from sti.codec.halves import WEIGHTS, bell_of, halves_of, nearest
from sti.device.profile import DeviceProfile
from sti.model.fidelity import fidelities
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.plan import EXACT, NARROW, PlanStep

NARROW_MOST_BITS = 4
"""The highest fidelity at which a step may be narrow."""


def variant_of(bits: Iterable[int], variants: Sequence[str]) -> str:
    """How to compute a step of shards of up to these fidelities.

    Args:
        variants: those worth choosing from on the machine.
    """
    return NARROW if NARROW in variants and max(bits) <= NARROW_MOST_BITS else EXACT


def graph_name(kind: str, variant: str) -> str:
    """What a device profile calls the graph of a kind of block."""
    return kind if variant == EXACT else f"{kind}.{variant}"


def variants_of(manifest: Manifest, profile: DeviceProfile) -> tuple[str, ...]:
    """The variants that the machine of a profile was measured with."""
    graphs = profile.compute.graphs
    narrow = all(graph_name(kind.name, NARROW) in graphs for kind in manifest.kinds)
    return (EXACT, NARROW) if narrow else (EXACT,)


def rounding_loss(manifest: Manifest) -> Mapping[int, float]:
    """For each fidelity that may be narrow, the loss that rounding adds, as a share of the loss
    that the planes above it would save.
    """
    return _rounding_loss(json.dumps(manifest.codebook))


def narrow_missing(
    manifest: Manifest, groups: Sequence[SliceGroup], steps: Sequence[PlanStep]
) -> float:
    """What narrow steps lose, in the unit of ``sti.model.fidelity.missing_of``."""
    missing, shares = 0.0, rounding_loss(manifest)
    for group, step in zip(groups, steps, strict=True):
        if step.variant == NARROW:
            for place, bits in enumerate(fidelities(group, step.counts)[: step.counts[0]]):
                lacked = sum(plane.gains[place] for plane in group.planes if plane.bits > bits)
                missing += shares[bits] * lacked if lacked else 0.0
    return missing


@lru_cache(maxsize=8)
def _rounding_loss(codebook: str) -> Mapping[int, float]:
    """``rounding_loss`` of a codebook's JSON text."""
    book = Codebook.from_json(json.loads(codebook))
    bell, shares = bell_of(book), {}
    for bits, values in book.values.items():
        if bits <= NARROW_MOST_BITS:
            near = nearest(values)
            exact, narrow = (
                int(bell @ np.square(WEIGHTS - used.astype(np.int64)[near]))
                for used in (values, 2 * halves_of(values, bell))
            )
            shares[bits] = max(0.0, narrow / max(exact, 1) - 1.0)
    return shares
