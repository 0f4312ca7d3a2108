"""The preload buffer: compressed bytes of leading steps that stay in memory between runs.

In: the leading bytes of each step that a plan wants held. Out: those bytes, without a read. Never
holds more than it was asked to, not even while it is being refilled. Follows the paper's preload
buffer, but holds contiguous bytes rather than whole shards, because planes nest.

Not thread-safe except for ``held_bytes``: only the storage lane touches it (or the caller, while
that lane is idle).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sti.arrays import ByteArray
from sti.planning.step_jobs import Starts, StepJob
from sti.storage.byte_ranges import ByteRange, cover, skip
from sti.storage.reader import Reader, aligned_buffer

_Key = tuple[int, str, int]


class StepBytes(NamedTuple):
    """A step's compressed bytes at hand: ``buffer[starts[i]:]`` is the job's range ``i``.

    ``from_ring``: they lie in the ring and are given back after decoding; else they are preloaded.
    """

    buffer: ByteArray
    starts: Starts
    from_ring: bool


class _Held(NamedTuple):
    ranges: tuple[ByteRange, ...]
    buffer: ByteArray


class Preload:
    """Leading bytes of slice groups, by layer, kind and number."""

    def __init__(self) -> None:
        self._held: dict[_Key, _Held] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes held now; may be asked for by any thread."""
        return sum(item.buffer.nbytes for item in tuple(self._held.values()))

    def retain(self, jobs: Sequence[StepJob]) -> list[StepJob]:
        """Drop what ``jobs`` do not want; return those that are still to be filled."""
        wanted = {_key(job): _leading(job) for job in jobs if job.preload_bytes}
        self._held = {
            key: held for key, held in self._held.items() if wanted.get(key) == held.ranges
        }
        return [job for job in jobs if job.preload_bytes and _key(job) not in self._held]

    def drop(self, most: int) -> None:
        """Drop what was held last until at most ``most`` bytes are held."""
        while self._held and self.held_bytes > most:
            self._held.popitem()

    def forget(self, layer: int, kind: str, number: int) -> bool:
        """Drop what is held of one slice group; whether anything was."""
        return self._held.pop((layer, kind, number), None) is not None

    def fill(self, job: StepJob, reader: Reader, slot: ByteArray) -> None:
        """Read the leading bytes of one step, through ``slot``, and hold them."""
        ranges = _leading(job)
        size = sum(item.length for item in ranges)
        buffer = aligned_buffer(size)[:size]  # of its own pages, which are given back with it
        done = 0
        for item in ranges:
            whole = cover(item)
            reader.read(whole, slot)
            lead = item.offset - whole.offset
            buffer[done : done + item.length] = slot[lead : lead + item.length]
            done += item.length
        self._held[_key(job)] = _Held(ranges, buffer)

    def holds(self, job: StepJob) -> bool:
        """Whether all of the step's bytes are held."""
        held = self._held.get(_key(job))
        return held is not None and held.ranges == job.ranges

    def holds_leading(self, job: StepJob) -> bool:
        """Whether the bytes that the step wants held are; may be asked for by any thread."""
        if not job.preload_bytes:
            return True
        held = self._held.get(_key(job))
        return held is not None and held.ranges == _leading(job)

    def whole(self, job: StepJob) -> StepBytes | None:
        """The step's bytes if all of them are held, as a view."""
        if not self.holds(job):
            return None
        held = self._held[_key(job)]
        return StepBytes(held.buffer, job.packed_starts, from_ring=False)

    def copy_into(self, job: StepJob, slot: ByteArray) -> int:
        """Copy the leading bytes that are held to their places in ``slot``; return how many."""
        held = self._held.get(_key(job))
        if held is None:
            return 0
        done = 0
        for mine, wanted, start in zip(
            held.ranges, job.ranges, job.slot_starts.tolist(), strict=False
        ):
            if mine.offset != wanted.offset:
                break
            length = min(mine.length, wanted.length)
            slot[start : start + length] = held.buffer[done : done + length]
            done += length
            if mine.length != wanted.length:
                break
        return done


def load_step(job: StepJob, preload: Preload, reader: Reader, slot: ByteArray) -> int:
    """Bring a step's bytes into ``slot``: what is held is copied, the rest read.

    Returns:
        The bytes read from storage.
    """
    read = 0
    for _, item, place in missing_reads(job, preload.copy_into(job, slot)):
        reader.read(item, slot[place : place + item.length])
        read += item.length
    return read


def missing_reads(job: StepJob, held: int) -> Iterator[tuple[int, ByteRange, int]]:
    """What is to be read of a step whose first ``held`` bytes are in its slot, in this order.

    Yields:
        The number of the range, what is read of it, in whole sectors, and its place in the slot.
    """
    missing = skip(job.ranges, held)
    position = 0
    for number, (wanted, whole) in enumerate(zip(job.ranges, job.covers, strict=True)):
        for item in missing:
            if wanted.offset <= item.offset < wanted.end:
                aligned = cover(item)
                # The aligned read may write again over the end of what was copied: same bytes.
                yield number, aligned, position + aligned.offset - whole.offset
        position += whole.length


def _key(job: StepJob) -> _Key:
    return job.group.layer, job.group.kind, job.group.number


def _leading(job: StepJob) -> tuple[ByteRange, ...]:
    """The first ``preload_bytes`` bytes of the job's ranges."""
    left = job.preload_bytes
    ranges = []
    for item in job.ranges:
        length = min(left, item.length)
        if length:
            ranges.append(ByteRange(item.offset, length))
        left -= length
    return tuple(ranges)
