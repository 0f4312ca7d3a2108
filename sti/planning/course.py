"""The course of a run that every choice of options takes: what waits for what, and fixed times.

In: the groups of a submodel, their costs, a limit. Out: a ``Course``: when things start, what is
shared, and when the work of each group must end at the latest. Knows nothing of options or losses.
Pure.

The course of a run under one thread a lane is that of the simulation (``cost_model``). Where k
threads share compute it is a relaxation of it, in which the threads work as one that is k times as
fast, and s shares of a group take it s / k of the seconds of one. Nothing of it lasts longer than
in the simulation, so bounds that follow from it hold:

    read    = max(storage before, slot) + read seconds
    storage = read, or where one thread does everything when that is free again
    decode  = max(read, free before, buffer) + s / k * decode seconds
    free    = decode, or where decoding threads also compute
              s / k * compute seconds + connect seconds / k later
    compute = max(decode, ready before + s / k * later * decode seconds) + s / k * compute seconds
    ready   = compute + connect seconds, where the group is the last of its block

``storage`` and ``free`` are when reading and decoding can go on, ``ready`` is when computing can.
For k threads ``free`` is the mean of when each of them is. ``later`` is the part of a group that is
not decoded before its block can be computed: threads that are ahead hold one share each, so all but
the first k - 1 of a block are left to the thread that connects the one before, and to later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sti.arrays import BoolArray, Float64Array
from sti.device.lanes import LaneThreads
from sti.model.manifest import SliceGroup
from sti.planning.cost_model import RunCosts

_ROUNDING_S = 1e-12


@dataclass(frozen=True, slots=True)
class Course:
    """The fixed times of a run, in seconds from the text's arrival, and what waits for what."""

    threads: LaneThreads
    start_s: float
    """When storage starts on the groups, less the time that the preload saves."""
    rows_s: float
    """When the token embeddings are there."""
    embed_s: float
    """When the embedding is there."""
    ends: Sequence[bool]
    """Whether each group is the last of its block."""
    connect_s: Sequence[float]
    """Seconds of ``connect`` after each group: none but after the last of a block."""
    shares: Sequence[int]
    """Shares into which threads divide each group."""
    later: Sequence[float]
    """The part of each group that is decoded only when its block can be computed."""
    slots: int
    """Groups that the ring holds."""
    limit_s: float
    """When the last block must be connected."""

    @property
    def parts(self) -> list[float]:
        """How much of each group's decode and compute seconds pass on the relaxed course."""
        return [count / self.threads.compute for count in self.shares]

    @property
    def joint(self) -> float:
        """1 where threads go on decoding only after they have computed, else 0."""
        return 0.0 if self.threads.decode else 1.0

    @property
    def serial(self) -> float:
        """How much of its decode and compute seconds pass before its thread can go on reading."""
        return 0.0 if self.threads.storage else 1.0

    @property
    def free_s(self) -> float:
        """When decoding can start, as far as threads are concerned."""
        if self.threads.decode:
            return self.rows_s
        return self.rows_s + (self.embed_s - self.rows_s) / self.threads.compute

    @property
    def buffers(self) -> int:
        """Working buffers that a decode thread of its own takes in turn; 0 without one."""
        return self.threads.buffers if self.threads.decode else 0

    def slot_before(self, read: BoolArray) -> list[int]:
        """The earlier group whose slot of the ring each one takes over; -1 for none.

        Where threads share compute, none: several groups may be decoded in any order, so that no
        single one is waited for, and relaxed waits would not bound real ones.

        Args:
            read: ``[n]``: groups that are read: the last ones, as a preload holds the first.
        """
        if not self.threads.decode:
            return [-1] * len(read)
        places = range(-self.slots, len(read) - self.slots)
        return [place if place >= 0 and read[place] else -1 for place in places]

    def latest_ends(self, read: BoolArray, times: Float64Array) -> tuple[Float64Array, bool]:
        """When ``storage``, ``free`` and ``ready`` of each group must be at the latest, ``[3, n]``.

        Args:
            read: as in ``slot_before``.
            times: ``[3, n]``: seconds of storage, decode and compute of each group.

        Returns:
            Also whether these can be met by a run that starts as this one does.
        """
        slot_before, count, buffers = self.slot_before(read), len(read), self.buffers
        joint, serial, one = self.joint, self.serial, 1.0 / self.threads.compute
        latest = []
        storage = free = ready = self.limit_s
        users = [math.inf] * (count + buffers)  # of the decode that takes over a group's buffer
        readers = [math.inf] * count  # of the read that takes over a group's slot
        rows = zip(*times.tolist(), self.connect_s, self.parts, self.later, strict=True)
        for k, row in reversed(list(enumerate(rows))):
            read_s, decode_s, compute_s, connect_s, part, later = row
            after_s = joint * (part * compute_s + one * connect_s)
            whole_s = serial * (decode_s + compute_s + connect_s)
            compute = min(ready - connect_s, users[k + buffers]) if buffers else ready - connect_s
            decode = min(compute - part * compute_s, free - after_s, readers[k])
            stored = min(decode - part * decode_s, storage - whole_s)
            latest.append((stored + whole_s, decode + after_s, compute + connect_s))
            storage = stored - read_s
            free = decode - part * decode_s
            ready = compute - part * (compute_s + later * decode_s)
            users[k] = free
            if slot_before[k] >= 0:
                readers[slot_before[k]] = storage
        reachable = (
            self.start_s <= storage + _ROUNDING_S
            and self.free_s <= free + _ROUNDING_S
            and self.embed_s <= ready + _ROUNDING_S
        )
        return np.array(latest[::-1]).T, reachable


def course_of(
    groups: Sequence[SliceGroup],
    costs: RunCosts,
    *,
    limit_s: float,
    preload_bytes: int,
    read_ahead: int,
) -> Course:
    """The course of running ``groups`` one after the other."""
    rows_s = costs.tokenize_s + costs.rows_s
    embed_s = rows_s + costs.embed_s
    ends = [costs.ends_block(group) for group in groups]
    shares = [costs.share_counts[group.kind] for group in groups]
    start_s = rows_s if costs.threads.storage else embed_s
    return Course(
        threads=costs.threads,
        start_s=start_s - preload_bytes / costs.bytes_per_s,
        rows_s=rows_s,
        embed_s=embed_s,
        ends=ends,
        connect_s=[costs.connect_s if end else 0.0 for end in ends],
        shares=shares,
        later=_later(shares, ends, costs.threads),
        slots=read_ahead + 1,
        limit_s=limit_s,
    )


def _later(shares: Sequence[int], ends: Sequence[bool], threads: LaneThreads) -> list[float]:
    """``Course.later``. A group that all threads share is computed when the last one has decoded:
    the one that connects.
    """
    if threads.decode:
        return [0.0] * len(shares)
    found, ahead = [], threads.compute - 1
    for count, end in zip(shares, ends, strict=True):
        early = min(count, ahead)
        found.append(1.0 if count == threads.compute else 1.0 - early / count)
        ahead = threads.compute - 1 if end else ahead - early
    return found
