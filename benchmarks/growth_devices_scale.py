"""What growth over several devices is measured at: kinds and numbers of devices, rates, batches.

Out: values, for figures that mean something and for a quick try. Knows nothing of how they are
measured.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.devices.kinds import Kind
from sti.model.workload import Workload


class Scale(NamedTuple):
    """What is measured."""

    kinds: tuple[Kind, ...]
    """Of the axis of devices."""
    numbers: tuple[int, ...]
    """Of devices, beside one."""
    link_kind: Kind
    """Of the axis of links, and of that of lengths."""
    mbit: tuple[float, ...]
    """Of links of their own."""
    shared_mbit: tuple[float, ...]
    """Of one medium."""
    text: Workload
    """One text, for latency."""
    lengths: tuple[int, ...]
    """Of one text, in tokens."""
    batch: Workload
    """For throughput over links."""
    large_batch: Workload
    """For throughput over devices: more of them take more texts until all have something to do."""


FULL = Scale(
    kinds=(Kind(8.0), Kind(8.0, "microsd")),
    numbers=(2, 4),
    link_kind=Kind(4.0, "microsd"),
    mbit=(5.0, 25.0, 50.0, 125.0, 300.0, 1000.0),
    shared_mbit=(25.0, 125.0, 300.0),
    text=Workload(1, 128),
    lengths=(16, 32, 64, 128, 256, 512),
    batch=Workload(32, 64),
    large_batch=Workload(64, 48),
)
QUICK = Scale(
    kinds=(Kind(8.0),),
    numbers=(2,),
    link_kind=Kind(4.0, "microsd"),
    mbit=(25.0, 1000.0),
    shared_mbit=(300.0,),
    text=Workload(1, 16),
    lengths=(8, 32),
    batch=Workload(4, 8),
    large_batch=Workload(4, 8),
)
