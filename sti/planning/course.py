"""The fixed times of a run and what waits for what: the course that every choice of options takes.

In: the groups of a submodel, their costs, a limit. Out: for each group its seconds on the compute
lane and whose slot and working buffer it takes over, and when its work must end at the latest.
Knows nothing of options or losses. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sti.arrays import BoolArray, Float64Array
from sti.model.fidelity import WORKING_BUFFERS
from sti.model.manifest import SliceGroup
from sti.planning.cost_model import RunCosts


@dataclass(frozen=True, slots=True)
class Course:
    """The fixed times of a run, in seconds from the text's arrival."""

    start_s: float
    """When storage starts on the groups, less the time that the preload saves."""
    rows_s: float
    """When the token embeddings are there."""
    embed_s: float
    """When the embedding is there."""
    compute_s: Sequence[float]
    """Seconds of each group on the compute lane."""
    before: Sequence[int]
    """The group of the same kind whose working buffer each takes over; -1 for none."""
    slots: int
    """Groups that the ring holds."""
    limit_s: float
    """When the last group must be computed."""

    def slot_before(self, read: BoolArray) -> list[int]:
        """The earlier group whose slot of the ring each one takes over; -1 for none.

        Args:
            read: ``[n]``: groups that are read: the last ones, as a preload holds the first.
        """
        places = range(-self.slots, len(read) - self.slots)
        return [place if place >= 0 and read[place] else -1 for place in places]

    def latest_ends(
        self, read: BoolArray, read_s: Float64Array, decode_s: Float64Array
    ) -> tuple[Float64Array, list[float]]:
        """When storage, decode and compute of each group must end, ``[3, n]``, to meet the limit.

        Groups take the seconds given; ``read`` as in ``slot_before``. Also returns the latest start
        of the first on each lane.
        """
        slot_before, count = self.slot_before(read), len(read)
        read_times, decode_times = read_s.tolist(), decode_s.tolist()
        latest = []
        starts = [math.inf] * 3  # of the next group, on each lane
        users = [math.inf] * count  # of the decode that uses the group's working buffer next
        readers = [math.inf] * count  # of the read that uses the group's slot next
        for k in reversed(range(count)):
            compute = min(self.limit_s, starts[2], users[k])
            decode = min(compute - self.compute_s[k], starts[1], readers[k])
            storage = min(decode - decode_times[k], starts[0])
            latest.append((storage, decode, compute))
            starts = [
                storage - read_times[k],
                decode - decode_times[k],
                compute - self.compute_s[k],
            ]
            if self.before[k] >= 0:
                users[self.before[k]] = starts[1]
            if slot_before[k] >= 0:
                readers[slot_before[k]] = starts[0]
        return np.array(latest[::-1]).T, starts


def course_of(
    groups: Sequence[SliceGroup],
    costs: RunCosts,
    *,
    limit_s: float,
    preload_bytes: int,
    read_ahead: int,
) -> Course:
    """The course of running ``groups`` one after the other."""
    users = {group.kind: [-1] * WORKING_BUFFERS for group in groups}
    before = []
    for k, group in enumerate(groups):
        before.append(users[group.kind].pop(0))
        users[group.kind].append(k)
    rows_s = costs.tokenize_s + costs.rows_s
    return Course(
        start_s=rows_s - preload_bytes / costs.storage.bytes_per_s,
        rows_s=rows_s,
        embed_s=rows_s + costs.embed_s,
        compute_s=costs.compute_s(groups),
        before=before,
        slots=read_ahead + 1,
        limit_s=limit_s,
    )
