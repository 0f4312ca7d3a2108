"""The slice groups of a submodel, the fidelities of their slices, and the loss to expect. Pure.

In: a manifest, and how many shards are read from each plane. Out: bits of each slice, the expected
loss. Knows nothing of times, targets or bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from sti.model.manifest import Manifest, SliceGroup, Submodel


def fidelities(group: SliceGroup, counts: Sequence[int]) -> tuple[int, ...]:
    """Bits in use of each slice (0: absent) when ``counts[p]`` shards of plane ``p`` are read.

    A shard has the highest fidelity for which all planes were read. Returns one entry per slice.
    """
    bits = [0] * group.slices
    below = 0
    for plane, count in zip(group.planes, counts, strict=True):
        for index in plane.order[:count]:
            if bits[index] == below:
                bits[index] = plane.bits
        below = plane.bits
    return tuple(bits)


Counts = tuple[int, ...]


def groups_of(manifest: Manifest, submodel: Submodel) -> list[SliceGroup]:
    """The groups that a submodel runs, in order of execution: those with a slice in use."""
    return [
        group
        for group in manifest.groups
        if group.layer in submodel.layers and group.first < submodel.width
    ]


def groups_in_use(sizes: Sequence[int], width: int) -> int:
    """How many of a block's groups, of these sizes, hold some of its first ``width`` slices."""
    return sum(first < width for first in accumulate((0, *sizes[:-1])))


def uniform_counts(group: SliceGroup, width: int, bits: int) -> Counts:
    """The counts that bring the group's slices in use, and no others, to ``bits``.

    ``width`` slices of the block are in use; at least one of them is in the group.
    """
    used = group.used(width)
    if used == group.slices:
        return tuple([used if plane.bits <= bits else 0 for plane in group.planes])
    return tuple(
        1 + max(place for place, index in enumerate(plane.order) if index < used)
        if plane.bits <= bits
        else 0
        for plane in group.planes
    )


def loss_of(submodel: Submodel, groups: Sequence[SliceGroup], counts: Sequence[Counts]) -> float:
    """Expected loss of a submodel, from its curve, for the planes that slices in use lack."""
    return submodel.loss_at(missing_of(submodel, groups, counts))


def missing_of(submodel: Submodel, groups: Sequence[SliceGroup], counts: Sequence[Counts]) -> float:
    """Sum of the gains of all planes that slices in use lack."""
    missing = 0.0
    for group, chosen in zip(groups, counts, strict=True):
        reached = fidelities(group, chosen)[: group.used(submodel.width)]
        lowest = min(reached)
        for plane in group.planes:
            if plane.bits <= lowest:
                continue
            missing += sum(
                gain for gain, bits in zip(plane.gains, reached, strict=False) if bits < plane.bits
            )
    return missing
