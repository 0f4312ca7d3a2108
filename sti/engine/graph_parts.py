"""What a plan takes of memory that is held as a graph, beyond what its runs take.

In: a pack's manifest, a plan with its jobs. Out: parts, in bytes. In a module of its own, as
budgets that have no room for a graph need nothing else of it.
"""

from __future__ import annotations

from sti.backend.onnxruntime.packed_size import are_alike, blocks_of, packed_bytes
from sti.engine.prepared import PreparedPlan
from sti.model.manifest import Manifest
from sti.planning.memory import MemoryPart

_PLACED, _MERGED = 100_000, 20_000
"""Bytes that a session takes, as measured: for a step or the end of a block; for each of the steps
of a block that are merged to one.
"""
LOADED = 1_700_000
"""Bytes of what is loaded to build, check and open graphs, as measured."""


def graph_parts(
    manifest: Manifest, prepared: PreparedPlan, *, loaded: bool
) -> tuple[MemoryPart, ...]:
    """The parts, those that the system can take back marked so.

    Args:
        loaded: what opens graphs is counted elsewhere.
    """
    session = 0 if loaded else LOADED
    for block in blocks_of(prepared.jobs):
        several = len(block) > 1 and are_alike(block)
        session += 2 * _PLACED + _MERGED * len(block) if several else _PLACED * (len(block) + 1)
    # Scales, biases and weights beyond the grid are in the file as well.
    mapped = packed_bytes(manifest, prepared.jobs) + manifest.resident.length
    return (
        MemoryPart("held: session of the graph", session),
        MemoryPart("held: weights of the graph", mapped, mapped=True),
    )
