"""When runs of all staircases end: the waits of ``cost_model.run_steps`` for many runs at once.

In: seconds of storage, decode and compute at each position ``n`` of each staircase ``c`` for each
workload ``w``, under one kind of threads. Out: seconds of whole runs. Knows nothing of profiles or
of how fidelities are chosen. Pure. Position after position, all runs move on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.device.lanes import LaneThreads
from sti.planning.cost_model import RunCosts
from sti.planning.staircase_loads import Loads


class Work(NamedTuple):
    """Seconds of each position of each staircase, under one kind of threads."""

    costs: Sequence[RunCosts]
    """Of each workload: what is the same for all staircases."""
    read_s: Float64Array
    """``[n, c]``."""
    decode_s: Float64Array
    """``[n, c]``: of each share, as ``compute_s``."""
    compute_s: Float64Array
    """``[n, w, c]``."""
    connect_s: Float64Array
    """``[w, c]``, or ``[w, 1]``."""
    shares: Int64Array | None
    """``[n, c]``, or ``[n, 1]`` where they are the same for all; None where all are 1."""
    loads: Loads
    taken: Float64Array | None
    """``[n, c]``: 1 where a position takes a slot of the ring, else 0; None where all do."""

    def total_s(self, threads: LaneThreads, slots: int) -> Float64Array:
        """Median seconds from text to answer, ``[w, c]``."""
        if not threads.storage:
            ready = self._one_after_the_other()
        elif threads.decode:
            ready = self._pipelined(slots, threads.buffers)
        else:
            ready = self._shared(slots, threads.compute)
        found: Float64Array = ready + self._each(lambda costs: costs.head_s + costs.fixed_s)
        return found

    def _each(self, seconds: Callable[[RunCosts], float]) -> Float64Array:
        """Seconds of each workload, ``[w, 1]``."""
        return np.array([[seconds(costs)] for costs in self.costs])

    def _start(self) -> tuple[Float64Array, Float64Array]:
        """When token embeddings are read, and when they are embedded, ``[w, c]``."""
        shape = self.compute_s.shape[1:]
        read_s = self._each(lambda costs: costs.tokenize_s + costs.rows_s)
        ready_s = read_s + self._each(lambda costs: costs.embed_s)
        return np.array(np.broadcast_to(read_s, shape)), np.array(np.broadcast_to(ready_s, shape))

    def _one_after_the_other(self) -> Float64Array:
        """When the last block is connected, where one thread does everything."""
        decode_s, compute_s = self.decode_s, self.compute_s
        if self.shares is not None:
            decode_s, compute_s = decode_s * self.shares, compute_s * self.shares[:, None]
        _, ready = self._start()
        ready += (self.read_s + decode_s).sum(axis=0)
        ready += compute_s.sum(axis=0)
        ready += self.loads.blocks * self.connect_s
        return ready

    def _connects(self, k: int) -> Float64Array:
        """Seconds of ``connect`` after position ``k``, ``[w, c]``."""
        return np.asarray(self.loads.ends[k] * self.connect_s)

    def _shares(self, k: int) -> Int64Array | int:
        """Shares of position ``k``: of all staircases, or ``[c]`` where they differ."""
        if self.shares is None:
            return 1
        found = self.shares[k]
        return int(found[0]) if len(found) == 1 else found

    def _reads(
        self, start_s: Float64Array, k: int, slots: int, decoded: list[Float64Array]
    ) -> None:
        """Move when storage is free on to the end of the read of position ``k``."""
        if k >= slots:
            freed = decoded[k - slots]
            if self.taken is not None:  # what a preload holds whole takes no slot
                freed = freed * self.taken[k - slots]
            np.maximum(start_s, freed, out=start_s)
        start_s += self.read_s[k]

    def _pipelined(self, slots: int, buffers: int) -> Float64Array:
        """When the last block is connected, under a thread for each lane."""
        stored, ready = self._start()
        free = stored
        decoded: list[Float64Array] = []
        computed: list[Float64Array] = []
        for k in range(len(self.read_s)):
            self._reads(stored, k, slots, decoded)
            free = np.maximum(free, stored)
            if k >= buffers:
                np.maximum(free, computed[k - buffers], out=free)
            free += self.decode_s[k]
            decoded.append(free)
            done = np.maximum(ready, free)
            done += self.compute_s[k]
            computed.append(done)
            ready = done + self._connects(k) if self.loads.some_end[k] else done
        return ready

    def _shared(self, slots: int, compute: int) -> Float64Array:
        """When the last block is connected, where threads share the steps.

        Threads are alike, so only when each becomes free matters: these are kept in order.
        """
        stored, ready = self._start()
        free = [np.zeros_like(ready) for _ in range(compute - 1)] + [ready]
        decoded: list[Float64Array] = []
        for k in range(len(self.read_s)):
            self._reads(stored, k, slots, decoded)
            shares = self._shares(k)
            taken = free[shares - 1] if isinstance(shares, int) else np.choose(shares - 1, free)
            end = np.maximum(taken, stored)
            end += self.decode_s[k]
            decoded.append(end)
            done = np.maximum(end, ready)
            done += self.compute_s[k]
            free = _given_back(free, done, shares)
            if self.loads.some_end[k]:
                last = free[-1] + self._connects(k)
                free[-1] = last
                all_end = self.loads.all_end[k]
                ready = last if all_end else np.where(self.loads.ends[k], last, ready)
        return ready


def _given_back(
    free: list[Float64Array], done: Float64Array, shares: Int64Array | int
) -> list[Float64Array]:
    """When threads are free, in order, after the first of them have worked until ``done``.

    Args:
        shares: how many of them, of all staircases or ``[c]``.
    """
    if not isinstance(shares, int):
        worked = np.arange(len(free))[:, None, None] < shares
        return list(np.sort(np.where(worked, done, np.array(free)), axis=0))
    found = free[shares:]
    for _ in range(shares):
        later = done
        for place, each in enumerate(found):
            found[place] = np.minimum(each, later)
            later = np.maximum(each, later)
        found.append(later)
    return found
