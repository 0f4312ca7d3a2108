"""The blocks of a submodel, the fidelities of their slices, and the loss to expect. Pure.

In: a manifest, and how many shards are read from each plane. Out: bits of each slice, the expected
loss, the working buffers that a pack needs. Knows nothing of times, targets or bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.model.manifest import Block, Manifest, Submodel


def working_buffers(manifest: Manifest) -> dict[str, int]:
    """How many decoded blocks of each kind are held in memory: one being computed, others waiting.

    Two of the kind with the largest blocks, one of each other kind. So the longest decode does not
    wait until the previous block has been computed, which would stall the pipeline where decode and
    compute take equally long (see docs/experiments.md).
    """
    weights: dict[str, int] = {}
    for block in manifest.blocks:
        weights[block.kind] = max(weights.get(block.kind, 0), block.shard_weights)
    largest = max(weights, key=lambda kind: weights[kind])
    return {kind: 2 if kind == largest else 1 for kind in weights}


def fidelities(block: Block, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Bits in use of each slice (0: absent) when ``counts[p]`` shards of plane ``p`` are read.

    A shard has the highest fidelity for which all planes were read. Returns one entry per slice.
    """
    bits = [0] * len(block.outlier_bytes)
    below = 0
    for plane, count in zip(block.planes, counts, strict=True):
        for index in plane.order[:count]:
            if bits[index] == below:
                bits[index] = plane.bits
        below = plane.bits
    return tuple(bits)


Counts = tuple[int, ...]


def blocks_of(manifest: Manifest, submodel: Submodel) -> list[Block]:
    """The blocks a submodel runs, in order of execution."""
    return [block for block in manifest.blocks if block.layer in submodel.layers]


def uniform_counts(block: Block, width: int, bits: int) -> Counts:
    """The counts that bring the first ``width`` slices, and no others, to ``bits``."""
    return tuple(
        1 + max(place for place, index in enumerate(plane.order) if index < width)
        if plane.bits <= bits
        else 0
        for plane in block.planes
    )


def loss_of(submodel: Submodel, blocks: Sequence[Block], counts: Sequence[Counts]) -> float:
    """Expected loss of a submodel, from its curve, for the planes that slices in use lack."""
    return submodel.loss_at(missing_of(submodel, blocks, counts))


def missing_of(submodel: Submodel, blocks: Sequence[Block], counts: Sequence[Counts]) -> float:
    """Sum of the gains of all planes that slices in use lack."""
    missing = 0.0
    for block, chosen in zip(blocks, counts, strict=True):
        reached = fidelities(block, chosen)[: submodel.width]
        for plane in block.planes:
            missing += sum(
                gain for gain, bits in zip(plane.gains, reached, strict=False) if bits < plane.bits
            )
    return missing
