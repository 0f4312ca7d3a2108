"""The roofline: the best rate of this machine on each lane, and what a plan takes at it.

In: a pack and what it is read from, or a plan. Out: rates, each measured alone and at its best, and
the seconds the same work takes at them. Nothing the pipeline does can be faster than the slowest of
the three; how near a run comes to that is how good it is. Knows nothing of runs.

    storage    bytes of the plan over the rate of large reads
    decode     bytes of the planes read and of the weights written, over the memory's bandwidth
    compute    products of the weights over the rate of one large product of the same kernel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from sti.backend.onnxruntime.session import product_rate
from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.reader import Reader, aligned_buffer

READ_BYTES = 1 << 20
"""Of one read: large enough that the time of a request does not show."""
MOST_BYTES = 64 << 20
"""Read in a pass, at most, from the start of the pack."""
COPIED_BYTES = 64 << 20
"""More than caches hold, on most machines."""
ROWS = 256
"""Of the large product."""
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Roofline:
    """Best rates, a second."""

    read_bytes: float
    moved_bytes: float
    """Through memory, read and written, by one thread."""
    products: float
    """Multiplications with addition, of the kind that slices take, on the compute threads."""

    def seconds(self, plan: Plan, manifest: Manifest, bytes_read: int) -> Mapping[str, float]:
        """Seconds a run of ``plan`` takes at least on each lane.

        Args:
            bytes_read: what the run reads from storage; what is preloaded is decoded all the same.
        """
        groups = [manifest.group(item.layer, item.kind, item.group) for item in plan.steps]
        weights = sum(group.shard_weights * group.used(plan.width) for group in groups)
        held = sum(item.preload_bytes for item in plan.steps)
        tokens = plan.workload.batch * plan.workload.tokens
        return {
            STORAGE: bytes_read / self.read_bytes,
            DECODE: (bytes_read + held + weights) / self.moved_bytes,
            COMPUTE: weights * tokens / self.products,
        }


def measure_roofline(reader: PackReader, storage: Reader, *, threads: int) -> Roofline:
    """Measure the three rates; takes a few tenths of a second beside the reads.

    Args:
        storage: what the pack is read from.
        threads: compute threads.
    """
    hidden = reader.manifest.dimensions.hidden
    return Roofline(
        read_bytes=read_rate(storage, reader.file_bytes),
        moved_bytes=_move_rate(),
        products=product_rate(ROWS, hidden, 4 * hidden, threads=threads),
    )


def read_rate(storage: Reader, file_bytes: int) -> float:
    """Bytes a second of large reads in a row, the best of a few passes."""
    buffer = aligned_buffer(READ_BYTES)
    end = min(file_bytes, MOST_BYTES) // SECTOR * SECTOR
    best = 0.0
    for _ in range(_PASSES):
        start = perf_counter()
        for offset in range(0, end, READ_BYTES):
            storage.read(ByteRange(offset, min(READ_BYTES, end - offset)), buffer)
        taken = perf_counter() - start
        best = max(best, end / taken)
        if taken > 1.0:
            break  # storage is slow: one pass is measurement enough
    return best


def _move_rate() -> float:
    source = np.ones(COPIED_BYTES // 2, dtype=np.uint8)
    target = np.empty_like(source)
    best = 0.0
    for _ in range(_PASSES + 1):  # the first one brings the memory in
        start = perf_counter()
        np.copyto(target, source)
        best = max(best, COPIED_BYTES / (perf_counter() - start))
    return best
