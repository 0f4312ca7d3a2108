"""How large the packed weights of a plan's graph are, and which of its steps are merged.

In: a manifest, the jobs of a plan's steps. Out: bytes, blocks of jobs. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from sti.backend.onnxruntime.packed_layer import LEAST, filled
from sti.model.manifest import COLUMNS, Manifest
from sti.planning.step_jobs import StepJob

_ALIGNMENT = 64
"""Of packed matrices."""
_COLUMNS, _ROWS = 16, 4
"""Packed matrices are filled up to multiples of so many columns and rows."""
_SUM_BYTES = 4
"""Of the sum of a column, which lies beside it."""


def packed_bytes(manifest: Manifest, jobs: Sequence[StepJob]) -> int:
    """Bytes of packed weights that a session over the graph of these steps maps and reads.

    What it does not count, scales, biases and side inputs, is about a hundredth of it.
    """
    kinds = {kind.name: kind for kind in manifest.kinds}
    total = 0
    for block in blocks_of(jobs):
        merged = len(block) if are_alike(block) else 1
        for job in block[::merged]:
            for operand in kinds[job.group.kind].operands:
                *several, rows, columns = operand.shape
                parts, count = job.used * prod(several), merged
                if operand.joined == COLUMNS:
                    columns, count = columns * parts * merged, 1
                else:
                    rows *= parts
                if rows * columns < LEAST:
                    continue
                columns = filled(columns, _COLUMNS)
                size = filled(columns * (filled(rows, _ROWS) + _SUM_BYTES), _ALIGNMENT)
                total += size * count
    return total


def blocks_of(jobs: Sequence[StepJob]) -> Iterator[Sequence[StepJob]]:
    """The jobs of one block after the other."""
    first = 0
    for place, job in enumerate(jobs, start=1):
        if job.connects:
            yield jobs[first:place]
            first = place


def are_alike(jobs: Sequence[StepJob]) -> bool:
    """Whether the steps of a block can be merged."""
    return len({(job.used, job.variant) for job in jobs}) == 1
