"""The roofline: the best rate of this machine on each lane, and what a plan takes at it.

In: a pack and what it is read from, or a plan. Out: rates, each of one thread, measured alone and
at its best, and the seconds the same work takes at them: all of it on one thread, as traces add up
the work of several. No run can be faster than the ideal of these three (``LaneThreads.ideal_s``);
how near one comes to that is how good it is. Knows nothing of runs.

    storage    bytes of the plan over the rate of large reads
    decode     bytes of the planes read and of the weights written, over the memory's bandwidth
    compute    products of the weights over the rate of one large product, of each step's own kernel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from sti.backend.onnxruntime.products import product_rate, saturates
from sti.backend.onnxruntime.session import session_options
from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from sti.planning.plan import EXACT, NARROW, VARIANTS, Plan
from sti.storage.byte_ranges import HUGE_PAGE, SECTOR, ByteRange
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
    """Best rates, a second, of one thread."""

    read_bytes: float
    moved_bytes: float
    """Through memory, read and written."""
    products: Mapping[str, float]
    """Variant to multiplications with addition, of the kind that its steps take."""

    def __str__(self) -> str:
        exact, narrow = (f"{self.products[variant] / 1e9:.0f}" for variant in (EXACT, NARROW))
        other = "" if narrow == exact else f", narrow {narrow}"
        return (
            f"a thread reads {self.read_bytes / 1e9:.2f} GB/s, moves "
            f"{self.moved_bytes / 1e9:.1f} GB/s, {exact} G int8 products/s{other}"
        )

    def seconds(self, plan: Plan, manifest: Manifest, bytes_read: int) -> Mapping[str, float]:
        """Seconds of one thread that a run of ``plan`` takes at least for each kind of work.

        Args:
            bytes_read: what the run reads from storage; what is preloaded is decoded all the same.
        """
        weights = dict.fromkeys(VARIANTS, 0)
        for item in plan.steps:
            group = manifest.group(item.layer, item.kind, item.group)
            weights[item.variant] += group.shard_weights * group.used(plan.width)
        held = sum(item.preload_bytes for item in plan.steps)
        tokens = plan.workload.batch * plan.workload.tokens
        return {
            STORAGE: bytes_read / self.read_bytes,
            DECODE: (bytes_read + held + sum(weights.values())) / self.moved_bytes,
            COMPUTE: sum(n * tokens / self.products[variant] for variant, n in weights.items()),
        }


def measure_roofline(reader: PackReader, storage: Reader) -> Roofline:
    """Measure the rates; takes a few tenths of a second beside the reads.

    Args:
        storage: what the pack is read from.
    """
    return Roofline(
        read_bytes=read_rate(storage, reader.file_bytes),
        moved_bytes=_move_rate(),
        products=_product_rates(reader.manifest.dimensions.hidden),
    )


def read_rate(storage: Reader, file_bytes: int) -> float:
    """Bytes a second of large reads in a row, the best of a few passes."""
    buffer = aligned_buffer(max(READ_BYTES, HUGE_PAGE))
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


def _product_rates(hidden: int) -> Mapping[str, float]:
    """Of each variant; where nothing saturates, both are the same kernel."""
    exact = product_rate(ROWS, hidden, 4 * hidden, narrow=False)
    if not saturates(session_options(1)):
        return dict.fromkeys(VARIANTS, exact)
    return {EXACT: exact, NARROW: product_rate(ROWS, hidden, 4 * hidden, narrow=True)}


def _move_rate() -> float:
    source = np.ones(COPIED_BYTES // 2, dtype=np.uint8)
    target = np.empty_like(source)
    best = 0.0
    for _ in range(_PASSES + 1):  # the first one brings the memory in
        start = perf_counter()
        np.copyto(target, source)
        best = max(best, COPIED_BYTES / (perf_counter() - start))
    return best
