"""What the lanes of a machine cost, and what runs add to that, as frozen data.

In: coefficients. Out: seconds, and the bounds within which they are believed. Pure: no clock, no
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sti.device.lanes import PIPELINED, SEQUENTIAL, shared

THREAD_NAMES = (SEQUENTIAL.name, PIPELINED.name, shared(1).name)
"""The kinds of ``LaneThreads``, as ``DeviceProfile.runs`` names them."""
LEAST_S, MOST_S = 1e-18, 1e3
"""Bounds of what one piece of work takes, a weight or a request; what lies outside is no time."""
MOST_FACTOR = 1e4
MOST_BYTES_PER_S = 1e15
"""What a profile may say, and be believed."""
COMPUTE_TERMS = 5
"""Terms of the compute model: 1, m, T, m T, m T S (T tokens in the batch, S in a sentence)."""


@dataclass(frozen=True, slots=True)
class StorageProfile:
    """Sequential reads: ``request_s + bytes / bytes_per_s`` each; ``row_s`` per token embedding."""

    direct: bool
    """Whether O_DIRECT works where the pack is stored."""
    request_s: float
    bytes_per_s: float
    row_s: float

    def read_s(self, requests: int, read_bytes: int) -> float:
        """Seconds to read ``read_bytes`` in ``requests`` requests."""
        return requests * self.request_s + read_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True)
class DecodeProfile:
    """One decode thread: ``shard_s`` seconds per shard plus ``weight_s[bits]`` per weight."""

    shard_s: float
    weight_s: Mapping[int, float]


class ComputeProfile(NamedTuple):
    """One compute lane, running one graph at a time."""

    graphs: Mapping[str, tuple[float, ...]]
    """Graph to coefficients in seconds of ``COMPUTE_TERMS``. A block's narrow graph has an entry of
    its own, ``<kind>.narrow``, where this machine computes it faster than the exact one."""


@dataclass(frozen=True, slots=True)
class RunProfile:
    """What whole runs under one kind of ``LaneThreads`` take beyond what their lanes take alone."""

    contention: Mapping[str, float]
    """Lane to the factor by which its work takes longer in such a run than when it is timed alone;
    above 0."""
    step_s: float
    """Seconds that each step waits for threads to wake up."""
    fixed_s: float
    """Seconds outside the lanes (thread start, collecting the answer)."""
    jitter: float
    """98th percentile of a run's time over its typical time, at least 1: what is assumed until runs
    show how much they differ."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Lane to the same ratio of the time that it works in such a run; empty where unknown."""


LaneProfile = StorageProfile | DecodeProfile | ComputeProfile
