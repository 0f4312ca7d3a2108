"""Where a run is after the first groups of a submodel, for many choices at once.

A *label* is one choice of options for the groups so far, with the exact state of the run that
results: threads, ring slots, working buffers, preload left. This is ``cost_model.run_steps`` and
its simulation, restated as recurrences over arrays; tests hold them equal. One set of recurrences
serves every kind of ``LaneThreads``: what differs is whether reading waits for the threads that
compute, and whether decoding does. Knows nothing of limits or multipliers. In: tables of options
and the fixed times of a run. Out: labels. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sti.arrays import BoolArray, Float64Array, Int64Array
from sti.planning.cost_model import RunCosts
from sti.planning.course import Course
from sti.planning.option_tables import OptionTables

Ends = tuple[Float64Array, ...]
"""Times of several threads, slots or working buffers; each ``[labels]``."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Choices for the groups so far: one entry per label in every array. Times are in seconds."""

    storage: Float64Array
    """When reading can go on."""
    free: Ends
    """When each thread that decodes can go on, the first one first."""
    ready: Float64Array
    """When computing can go on, as far as the groups before are concerned."""
    decoded: Float64Array
    """When all groups so far are decoded."""
    ring: Ends
    """When slots become free, the latest first."""
    buffers: Ends
    """When the working buffers of a decode thread of its own become free, the latest first."""
    preload: Int64Array
    """Bytes of the budget that are left."""
    loss: Float64Array
    read: Int64Array
    """Bytes read from storage."""

    def take(self, index: Int64Array) -> Labels:
        """Copies of the labels at ``index``, which may repeat."""
        return Labels(
            self.storage[index],
            tuple(end[index] for end in self.free),
            self.ready[index],
            self.decoded[index],
            tuple(end[index] for end in self.ring),
            tuple(end[index] for end in self.buffers),
            self.preload[index],
            self.loss[index],
            self.read[index],
        )


@dataclass(frozen=True, slots=True)
class Successors:
    """What labels become with one more group. Label by label, and option by option for each."""

    storage: Float64Array
    settled: Float64Array
    """``storage``, less the time that the rest of the preload will save."""
    free: Ends
    ready: Float64Array
    decoded: Float64Array
    computed: Float64Array
    """When the group is computed, without ``connect``."""
    preload: Int64Array | None
    """None: nothing is left for any."""
    loss: Float64Array
    read: Int64Array
    reads: BoolArray | None
    """Whether anything of the group is read, and so takes a slot. None: it is, for all."""

    @property
    def free_s(self) -> Float64Array:
        """The mean of ``free``."""
        mean = self.free[0]
        for end in self.free[1:]:
            mean = mean + end
        return mean * (1.0 / len(self.free))

    def take(self, index: Int64Array) -> Successors:
        """Copies of those at ``index``."""
        return Successors(
            self.storage[index],
            self.settled[index],
            tuple(end[index] for end in self.free),
            self.ready[index],
            self.decoded[index],
            self.computed[index],
            None if self.preload is None else self.preload[index],
            self.loss[index],
            self.read[index],
            None if self.reads is None else self.reads[index],
        )


class SimulatedRun:
    """Runs the groups of one submodel, for many labels at a time."""

    def __init__(self, options: OptionTables, course: Course, costs: RunCosts) -> None:
        self.options, self.course = options, course
        self.bytes_per_s, self.request_s = costs.bytes_per_s, costs.request_s
        self.bytes_s: Float64Array = options.read_bytes / costs.bytes_per_s
        """``[n, o]``: the part of a group's storage seconds that grows with its bytes."""
        self.requests_s: Float64Array = options.requests.astype(np.float64) * costs.request_s
        """``[n, o]``: the part that grows with its requests, before any preload."""
        self.read_s: Float64Array = self.requests_s + self.bytes_s

    def start(self, preload_bytes: int) -> Labels:
        """The one label before the first group."""
        zero = np.zeros(1)
        course, threads = self.course, self.course.threads
        rows, embed = np.array([course.rows_s]), np.array([course.embed_s])
        # The thread that embeds does not decode until then; without token embeddings none does.
        free = (rows,) if threads.decode else (*(rows,) * (threads.compute - 1), embed)
        return Labels(
            storage=rows if threads.storage else embed,
            free=free,
            ready=embed,
            decoded=rows,
            ring=(zero,) * course.slots,
            buffers=(zero,) * course.buffers,
            preload=np.array([preload_bytes], np.int64),
            loss=zero,
            read=np.zeros(1, np.int64),
        )

    def advance(self, labels: Labels, k: int, option: Int64Array) -> Labels:
        """Run group ``k`` with one option per label: int64 ``[labels]``."""
        return self._follow(labels, self._run(labels, k, option, every=False), None)

    def extend(
        self, labels: Labels, groups: Sequence[int], choices: Int64Array
    ) -> tuple[Labels, Successors]:
        """Run groups one after the other with every one of ``choices`` for every label.

        Args:
            groups: their places.
            choices: ``[choices, groups]``: an option for each.

        Returns:
            The labels before the last group, and the candidates that they become with it.
        """
        found = self._run(labels, groups[0], choices[:, 0], every=True)
        if len(groups) == 1:
            return labels, found
        count = len(labels.loss)
        parent: Int64Array | None = np.repeat(np.arange(count), len(choices))
        for k, option in zip(groups[1:], choices.T[1:], strict=True):
            labels, parent = self._follow(labels, found, parent), None
            found = self._run(labels, k, np.tile(option, count), every=False)
        return labels, found

    def follow(self, labels: Labels, found: Successors, index: Int64Array) -> Labels:
        """The labels that candidates are: those at ``index``.

        Args:
            labels: those before the last group that the candidates ran.
        """
        parent = index // (len(found.loss) // len(labels.loss))
        return self._follow(labels, found.take(index), parent)

    def _run(self, labels: Labels, k: int, option: Int64Array, *, every: bool) -> Successors:
        def before(values: Float64Array) -> Float64Array:
            return values[:, None] if every else values

        options, course = self.options, self.course
        held, missing = labels.preload, options.read_bytes[k][option]
        slot = np.maximum(labels.storage, labels.ring[-1])
        preload, reads = None, None
        if held.any():
            held = held[:, None] if every else held
            reads = missing > held
            preload = np.maximum(held - missing, 0)
            requests = options.requests[k][option]
            for starts in options.breaks[k]:
                requests = requests - (starts[option] <= held)
            missing = np.where(reads, missing - held, 0)
            read_s = requests * self.request_s + missing / self.bytes_per_s
            storage = np.where(reads, before(slot) + read_s, before(labels.storage))
        else:  # the preload is used up, and every group reads something
            storage = before(slot) + self.read_s[k][option]
        start = labels.free[course.shares[k] - 1]
        if labels.buffers:
            start = np.maximum(start, labels.buffers[-1])
        decode = np.maximum(storage, before(start)) + options.decode_s[k][option]
        computed = np.maximum(decode, before(labels.ready)) + options.compute_s[k][option]
        free, ready = self._threads(k, labels, decode, computed, before)
        if not course.threads.storage:
            storage = free[0]
        loss = before(labels.loss) + options.loss[k][option]
        read = (labels.read[:, None] if every else labels.read) + missing
        settled = storage if preload is None else storage - preload / self.bytes_per_s
        return Successors(
            storage.ravel(),
            settled.ravel(),
            tuple(end.ravel() for end in free),
            np.broadcast_to(ready, decode.shape).ravel(),
            (decode if labels.buffers else np.maximum(before(labels.decoded), decode)).ravel(),
            computed.ravel(),
            None if preload is None else preload.ravel(),
            loss.ravel(),
            read.ravel(),
            None if reads is None or reads.all() else reads.ravel(),
        )

    def _threads(
        self,
        k: int,
        labels: Labels,
        decode: Float64Array,
        computed: Float64Array,
        before: Callable[[Float64Array], Float64Array],
    ) -> tuple[Ends, Float64Array]:
        """``Labels.free`` and ``ready`` after group ``k``.

        The last of the threads that share compute is the one that ends a block: those that have
        done nothing of it were free when the block before was connected.
        """
        ends, connect_s = self.course.ends[k], self.course.connect_s[k]
        if self.course.threads.decode:
            return (decode,), computed + connect_s if ends else computed
        shares, rest = self.course.shares[k], labels.free[self.course.shares[k] :]
        free = []
        for place in range(shares + len(rest)):  # the threads of all shares end together
            end = computed
            if place >= shares:
                end = np.maximum(before(rest[place - shares]), end)
            if place < len(rest):
                end = np.minimum(before(rest[place]), end)
            free.append(end)
        if not ends:
            return tuple(free), before(labels.ready)
        ready = free[-1] + connect_s
        return (*free[:-1], ready), ready

    def _follow(self, labels: Labels, found: Successors, parent: Int64Array | None) -> Labels:
        """The labels that candidates are. ``parent``: of each, the label before; None: in order."""

        def old(ends: Ends) -> Ends:
            return ends if parent is None else tuple(end[parent] for end in ends)

        if found.reads is None:
            ring = (found.decoded, *old(labels.ring[:-1]))
        else:
            still = old(labels.ring)
            pushed = (found.decoded, *still[:-1])
            ring = tuple(np.where(found.reads, *ends) for ends in zip(pushed, still, strict=True))
        buffers = (found.computed, *old(labels.buffers[:-1])) if labels.buffers else ()
        preload = found.preload
        if preload is None:
            preload = np.zeros(len(found.loss), np.int64)
        return Labels(
            found.storage,
            found.free,
            found.ready,
            found.decoded,
            ring,
            buffers,
            preload,
            found.loss,
            found.read,
        )
