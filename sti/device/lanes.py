"""Names of the lanes, the parts of a run that work in parallel, and their threads. Pure.

In: the number of a thread. Out: names of lanes, kinds of threads. Knows nothing of steps or costs.
Everything that is stated per lane (profiles, plans, predictions, traces, timings) is a mapping from
these names, so that a lane can be added or left out without adding a field anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

STORAGE, DECODE, COMPUTE = "storage", "decode", "compute"

LANES = (STORAGE, DECODE, COMPUTE)
"""In the order in which a step passes through them."""
LINK = "link"
"""Lane of what comes from other devices: no thread of a run works it, and no step passes it."""

MOST_THREADS = 128
"""That compute: planning takes longer with each, with more of them seconds."""

_DECODED_AHEAD = 2
"""Steps that a decode thread of its own may be ahead of the step that is computed."""


def lane_of(lane: str, thread: int) -> str:
    """The lane of one of several threads that do the same: ``compute``, ``compute 1``, ..."""
    return f"{lane} {thread}" if thread else lane


def is_lane(name: str, most_threads: int) -> bool:
    """Whether ``lane_of`` gives a lane of so many threads this name."""
    lane, _, thread = name.partition(" ")
    if lane not in LANES or not (thread or "0").isdecimal() or len(thread) > len(str(most_threads)):
        return False
    number = int(thread or "0")
    return number < most_threads and name == lane_of(lane, number)


def same_work(lane: str, work: str) -> bool:
    """Whether a lane, of whichever thread, does this work: one of ``LANES``."""
    return lane.partition(" ")[0] == work


def by_work(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each lane to seconds of each work: those of all threads that do it together."""
    return {
        work: sum((found for lane, found in seconds.items() if same_work(lane, work)), 0.0)
        for work in LANES
    }


class LaneThreads(NamedTuple):
    """How many threads each lane has.

    A lane without a thread of its own is worked by the compute threads: each decodes, or reads and
    decodes, what it is about to compute. There are three kinds: ``SEQUENTIAL``, ``PIPELINED`` and
    those that ``shared`` makes.
    """

    storage: int
    decode: int
    compute: int

    @property
    def name(self) -> str:
        """``sequential``, ``pipelined`` or ``shared``."""
        if not self.storage:
            return "sequential"
        return "pipelined" if self.decode else "shared"

    @property
    def buffers(self) -> int:
        """Decoded slice groups that are in memory at a time."""
        return _DECODED_AHEAD + 1 if self.decode else self.compute

    def ideal_s(self, work_s: Mapping[str, float]) -> float:
        """Seconds of a run in which no thread waits and all that compute have the same to do.

        Args:
            work_s: what ``by_work`` gives.
        """
        read_s, decode_s, compute_s = (work_s[work] for work in LANES)
        if not self.storage:
            return read_s + decode_s + compute_s
        if self.decode:
            return max(read_s, decode_s, compute_s)
        return max(read_s, (decode_s + compute_s) / self.compute)


SEQUENTIAL = LaneThreads(0, 0, 1)
"""One thread, the caller's, does everything, one step after the other."""
PIPELINED = LaneThreads(1, 1, 1)
"""A thread for each lane; the caller's computes."""


def shared(compute: int) -> LaneThreads:
    """Threads that share the slice groups of each block, and decode what they compute."""
    return LaneThreads(1, 0, compute)
