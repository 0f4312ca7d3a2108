"""What an engine with a plan adds to the memory of its process, by part, as far as that is exact.

In: an open pack and a plan of it. Out: parts with their sizes. Libraries, sessions and what they
allocate for themselves are not counted.
"""

from __future__ import annotations

from sti.backend.working_buffer import largest_group_bytes
from sti.engine.prepared import StepJobs
from sti.pack.pack_reader import PackReader
from sti.pipeline.ring_buffer import ring_bytes
from sti.planning.memory import MemoryPart
from sti.planning.plan import Plan
from sti.storage.reader import HUGE_PAGE


def memory_parts(reader: PackReader, plan: Plan) -> list[MemoryPart]:
    """The parts, in the order in which they are taken."""
    manifest = reader.manifest
    slots = [job.slot_bytes for job in StepJobs(reader).of(plan)]
    preloaded = sum(step.preload_bytes for step in plan.steps)
    parts = [
        MemoryPart("resident tensors", manifest.resident.length),
        MemoryPart("preload buffer", preloaded),
        MemoryPart("ring for reads", max(HUGE_PAGE, ring_bytes(slots, plan.read_ahead + 1))),
        MemoryPart("working buffers", plan.threads.buffers * largest_group_bytes(manifest)),
    ]
    return [part for part in parts if part.size]
