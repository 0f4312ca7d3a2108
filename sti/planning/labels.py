"""Where the pipeline is after the first groups of a submodel, for many choices at once.

A *label* is one choice of options for the groups so far, with the exact state of the pipeline that
results: lanes, ring slots, working buffers, preload left. This is ``cost_model.run_steps`` and its
simulation, restated as recurrences over arrays; tests hold them equal. Knows nothing of limits or
multipliers. In: tables of options and the pipeline's fixed times. Out: labels. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sti.arrays import BoolArray, Float64Array, Int64Array
from sti.device.profile import StorageProfile
from sti.model.fidelity import WORKING_BUFFERS
from sti.planning.course import Course
from sti.planning.option_tables import OptionTables

Ends = tuple[Float64Array, ...]
"""When slots or working buffers become free, the latest first; each ``[labels]``."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Choices for the groups so far: one entry per label in every array. Times are in seconds."""

    storage: Float64Array
    decode: Float64Array
    compute: Float64Array
    ring: Ends
    buffers: dict[str, Ends]
    """Kind of block to its working buffers."""
    preload: Int64Array
    """Bytes of the budget that are left."""
    loss: Float64Array
    read: Int64Array
    """Bytes read from storage."""

    def take(self, index: Int64Array) -> Labels:
        """Copies of the labels at ``index``, which may repeat."""
        return Labels(
            self.storage[index],
            self.decode[index],
            self.compute[index],
            tuple(slot[index] for slot in self.ring),
            {kind: tuple(end[index] for end in ends) for kind, ends in self.buffers.items()},
            self.preload[index],
            self.loss[index],
            self.read[index],
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """What labels become with one more group. Label by label, and option by option for each."""

    storage: Float64Array
    settled: Float64Array
    """When storage is done, less the time that the rest of the preload will save."""
    decode: Float64Array
    compute: Float64Array
    preload: Int64Array | None
    """None: nothing is left for any."""
    loss: Float64Array
    read: Int64Array
    reads: BoolArray | None
    """Whether anything of the group is read, and so takes a slot. None: it is, for all."""

    def take(self, index: Int64Array) -> Candidates:
        """Copies of those at ``index``."""
        return Candidates(
            self.storage[index],
            self.settled[index],
            self.decode[index],
            self.compute[index],
            None if self.preload is None else self.preload[index],
            self.loss[index],
            self.read[index],
            None if self.reads is None else self.reads[index],
        )


class SimulatedPipeline:
    """Runs the groups of one submodel, for many labels at a time."""

    def __init__(
        self, options: OptionTables, kinds: Sequence[str], course: Course, storage: StorageProfile
    ) -> None:
        self.options, self.kinds, self.course = options, kinds, course
        self.bytes_per_s, self.request_s = storage.bytes_per_s, storage.request_s
        self.bytes_s: Float64Array = options.read_bytes / storage.bytes_per_s
        """``[n, o]``: the part of a group's storage seconds that grows with its bytes."""
        self.requests_s: Float64Array = options.requests.astype(np.float64) * storage.request_s
        """``[n, o]``: the part that grows with its requests, before any preload."""
        self.read_s: Float64Array = self.requests_s + self.bytes_s

    def start(self, preload_bytes: int) -> Labels:
        """The one label before the first group."""
        zero = np.zeros(1)
        return Labels(
            storage=np.array([self.course.rows_s]),
            decode=zero,
            compute=np.array([self.course.embed_s]),
            ring=(zero,) * self.course.slots,
            buffers=dict.fromkeys(self.kinds, (zero,) * WORKING_BUFFERS),
            preload=np.array([preload_bytes], np.int64),
            loss=zero,
            read=np.zeros(1, np.int64),
        )

    def advance(self, labels: Labels, k: int, option: Int64Array) -> Labels:
        """Run group ``k`` with one option per label: int64 ``[labels]``."""
        return self._follow(labels, k, self._run(labels, k, option, every=False), None)

    def extend(
        self, labels: Labels, groups: Sequence[int], choices: Int64Array
    ) -> tuple[Labels, Candidates]:
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
        for before, k, option in zip(groups, groups[1:], choices.T[1:], strict=False):
            labels, parent = self._follow(labels, before, found, parent), None
            found = self._run(labels, k, np.tile(option, count), every=False)
        return labels, found

    def follow(self, labels: Labels, k: int, found: Candidates, index: Int64Array) -> Labels:
        """The labels that candidates are: those at ``index``.

        Args:
            labels: those before group ``k``, the last that the candidates ran.
        """
        parent = index // (len(found.loss) // len(labels.loss))
        return self._follow(labels, k, found.take(index), parent)

    def _run(self, labels: Labels, k: int, option: Int64Array, *, every: bool) -> Candidates:
        def before(values: Float64Array) -> Float64Array:
            return values[:, None] if every else values

        options = self.options
        buffers, held = labels.buffers[self.kinds[k]], labels.preload
        missing = options.read_bytes[k][option]
        slot, preload, reads = before(np.maximum(labels.storage, labels.ring[-1])), None, None
        if held.any():
            held = held[:, None] if every else held
            reads = missing > held
            preload = np.maximum(held - missing, 0)
            requests = options.requests[k][option]
            for starts in options.breaks[k]:
                requests = requests - (starts[option] <= held)
            missing = np.where(reads, missing - held, 0)
            read_s = requests * self.request_s + missing / self.bytes_per_s
            storage = np.where(reads, slot + read_s, before(labels.storage))
        else:  # the preload is used up, and every group reads something
            storage = slot + self.read_s[k][option]
        free = before(np.maximum(labels.decode, buffers[-1]))
        decode = np.maximum(storage, free) + options.decode_s[k][option]
        compute = np.maximum(before(labels.compute), decode) + self.course.compute_s[k]
        loss = before(labels.loss) + options.loss[k][option]
        read = (labels.read[:, None] if every else labels.read) + missing
        settled = storage if preload is None else storage - preload / self.bytes_per_s
        return Candidates(
            storage.ravel(),
            settled.ravel(),
            decode.ravel(),
            compute.ravel(),
            None if preload is None else preload.ravel(),
            loss.ravel(),
            read.ravel(),
            None if reads is None or reads.all() else reads.ravel(),
        )

    def _follow(
        self, labels: Labels, k: int, found: Candidates, parent: Int64Array | None
    ) -> Labels:
        """The labels that candidates are. ``parent``: of each, the label before; None: in order."""

        def old(ends: Ends) -> Ends:
            return ends if parent is None else tuple(end[parent] for end in ends)

        if found.reads is None:
            ring = (found.decode, *old(labels.ring[:-1]))
        else:
            still = old(labels.ring)
            pushed = (found.decode, *still[:-1])
            ring = tuple(np.where(found.reads, *ends) for ends in zip(pushed, still, strict=True))
        buffers = {
            kind: (found.compute, *old(ends[:-1])) if kind == self.kinds[k] else old(ends)
            for kind, ends in labels.buffers.items()
        }
        preload = found.preload
        if preload is None:
            preload = np.zeros(len(found.loss), np.int64)
        return Labels(
            found.storage,
            found.decode,
            found.compute,
            ring,
            buffers,
            preload,
            found.loss,
            found.read,
        )
