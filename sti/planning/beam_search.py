"""The fidelities of one submodel: least loss with the last block computed by a limit.

A beam search over the blocks in order of execution. A *label* is one choice of options for the
blocks so far, with the exact state of the pipeline that results (lanes, ring slots, working
buffers, preload left), so a label that reaches the end is a plan that meets the limit. Labels that
cannot end in time are dropped. If too many are left, the least promising (by loss plus lateness,
weighted by the multipliers of ``sti.planning.lagrange``) are dropped too, but a diverse set is
kept: near the end, a label unlike the best may be the only one that still fits. If none had to be
dropped the answer is the optimum; otherwise it is still no worse than the best plan made of one or
two uniform parts.

Swapping pairs of options, starting from the relaxed choice, was tried instead: about the same loss
at BERT-base size for several times the work, and no proof for small models. Knows nothing of
targets or other submodels. "Loss" in this module is the sum of the gains of the planes that are not
read, before the submodel's curve is applied. In: a submodel, its costs and its limit. Out: a lower
bound, then shard counts of every block. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.model.manifest import Block
from sti.planning.cost_model import RunCosts
from sti.planning.lagrange import Course, Multipliers, find_multipliers, surely_read
from sti.planning.option_tables import tabulate

MOST_CHOICES = 48
"""Options tried per block; more where labels are few."""
MOST_CANDIDATES = 60_000
"""Labels times options looked at, over all blocks together."""
CLOSE = 0.1
"""Labels this far behind the best are still considered, in shares of a block's mean time."""
RESERVE = 16
"""Labels kept in reserve, in case the most promising ones lead nowhere."""
_FREE = 1e-3
"""Share of the full multiplier for seconds of a lane that nothing waits for."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """One submodel, and what its run may take."""

    blocks: Sequence[Block]
    width: int
    costs: RunCosts
    limit_s: float
    """When the last block must be computed, in seconds from the text's arrival."""
    preload_bytes: int
    read_ahead: int


@dataclass(slots=True)
class Labels:
    """Choices for the blocks so far: one entry a label in every array. Times are in seconds."""

    storage: Float64Array
    decode: Float64Array
    compute: Float64Array
    ring: Float64Array  # [labels, slots]: when each slot becomes free, the latest first
    buffers: dict[str, Float64Array]  # [labels, buffers] of a kind: as the ring's slots
    preload: Int64Array  # bytes of the budget that are left
    loss: Float64Array
    read: Int64Array  # bytes read from storage

    def take(self, index: Int64Array) -> Labels:
        """Copies of the labels at ``index``, which may repeat."""
        return Labels(
            self.storage[index],
            self.decode[index],
            self.compute[index],
            self.ring[index],
            {kind: ends[index] for kind, ends in self.buffers.items()},
            self.preload[index],
            self.loss[index],
            self.read[index],
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice that meets the limit."""

    loss: float
    read: int
    end_s: float
    counts: list[tuple[int, ...]]


class Search:
    """The search of one task: tables and multipliers first, then block after block.

    Each holds some megabytes of tables, so keep few of them.
    """

    def __init__(self, task: SearchProblem) -> None:
        self.task = task
        self.options = options = tabulate(task.blocks, task.width, task.costs)
        self.kinds = [block.kind for block in task.blocks]
        self._buffers = task.costs.buffers
        self.course = _course(task, self.kinds)
        self._taken_over = [j in self.course.before for j in range(len(self.kinds))]
        """Whether each block's working buffer is used again by a later block."""
        storage = task.costs.storage
        self.bytes_s: Float64Array = options.read_bytes / storage.bytes_per_s
        self.requests_s: Float64Array = options.requests.astype(np.float64) * storage.request_s
        decode_s: Float64Array = options.decode_s.min(axis=1)
        read = surely_read(options, task.preload_bytes)
        read_s: Float64Array = (self.bytes_s + self.requests_s * read[:, None]).min(axis=1)
        slot_before = self.course.slot_before(read)
        self._latest, first_s = _latest_ends(self.course, slot_before, read_s, decode_s)
        least_loss = options.loss.min(axis=1)
        self._loss_to_come = least_loss.sum() - np.cumsum(least_loss)
        self.tie = _ROUNDING * float(options.largest_loss.sum())
        self.bound = 0.0
        """No choice that meets the limit has less loss."""
        self.hopeless = self.course.start_s > first_s[0] or self.course.embed_s > first_s[2]
        """Whether it is clear before any choice is tried that none meets the limit."""
        if self.hopeless:
            return
        self._multipliers = find_multipliers(
            self.course, options, self.bytes_s, self.requests_s, task.preload_bytes
        )
        self.bound = max(0.0, self._multipliers.bound - self.tie)
        slot_before = self.course.slot_before(self._multipliers.read)
        self._relaxed, _ = _latest_ends(self.course, slot_before, *self._multipliers.mean_s)
        # Only of blocks read in the relaxed schedule; each label knows which slots it has taken.
        starts = self._relaxed[0] - self._multipliers.mean_s[0]
        self._slot_due: Float64Array = np.where(
            self._multipliers.read, np.maximum(starts, 0.0), math.inf
        )

    def run(self, ceiling: float) -> list[tuple[int, ...]] | None:
        """The shard counts of every block; None where no choice with a loss up to ``ceiling`` fits.

        Among equal losses, fewer bytes read win, then an earlier end.
        """
        if self.hopeless or self.bound > ceiling:
            return None
        simple = self.best_of_two_parts(ceiling)
        if simple is not None:
            ceiling = simple.loss
        found = self._beam(ceiling)
        if found is None or (simple is not None and self._better(simple, found)):
            found = simple
        return None if found is None else found.counts

    def _better(self, one: Choice, other: Choice) -> bool:
        """Whether one has less loss, or the same loss and fewer bytes or an earlier end."""
        if abs(one.loss - other.loss) > self.tie:
            return one.loss < other.loss
        return (one.read, one.end_s) < (other.read, other.end_s)

    def best_of_two_parts(self, ceiling: float) -> Choice | None:
        """The best choice with one fidelity up to some block and another one after it.

        The answer is then never worse than these, and the beam need not find them.
        """
        used = self.options.used
        reaches = np.tri(used.shape[1], dtype=np.int64) * self.task.width
        uniform = [int(np.flatnonzero((used == reach).all(axis=1))[0]) for reach in reaches]
        count = len(self.kinds)
        cases = np.array(
            [
                [first] * split + [then] * (count - split)
                for first in uniform
                for then in uniform
                for split in (range(1, count) if first != then else (count,))
            ]
        )
        labels = self.start().take(np.zeros(len(cases), np.int64))
        for k in range(count):
            labels = self.advance(labels, k, cases[:, k])
        index = self._in_time(labels, count - 1, ceiling)
        if not len(index):
            return None
        return self._found(labels.take(index), lambda label: cases[index[label]].tolist())

    def _beam(self, ceiling: float) -> Choice | None:
        """The best choice that the beam search finds."""
        multipliers = self._multipliers
        candidates = MOST_CANDIDATES // len(self.kinds)
        labels = self.start()
        trace: list[tuple[Int64Array, Int64Array]] = []
        for k in range(len(self.kinds)):
            choices = self._choices(multipliers, k, candidates // len(labels.loss))
            parent = np.repeat(np.arange(len(labels.loss)), len(choices))
            option = np.tile(choices, len(labels.loss))
            labels = self.advance(labels.take(parent), k, option)
            index = self._in_time(labels, k, ceiling)
            most = candidates // min(len(choices), MOST_CHOICES)
            if len(index) > most:
                index = self._promising(labels, multipliers, k, index, most)
            if not len(index):
                return None
            labels = labels.take(index)
            trace.append((parent[index], option[index]))
        return self._found(labels, lambda label: _follow(trace, label))

    def _found(self, labels: Labels, options_of: Callable[[int], list[int]]) -> Choice:
        """The best of the labels that reached the end."""
        ties = np.flatnonzero(labels.loss <= labels.loss.min() + self.tie)
        best = int(ties[np.lexsort((labels.compute[ties], labels.read[ties]))[0]])
        counts = [self.options.counts(k, option) for k, option in enumerate(options_of(best))]
        return Choice(
            float(labels.loss[best]), int(labels.read[best]), float(labels.compute[best]), counts
        )

    def start(self) -> Labels:
        """The one label before the first block."""
        rows_s, slots = self.course.rows_s, self.task.read_ahead + 1
        return Labels(
            storage=np.array([rows_s]),
            decode=np.zeros(1),
            compute=np.array([self.course.embed_s]),
            ring=np.zeros((1, slots)),
            buffers={kind: np.zeros((1, self._buffers[kind])) for kind in self.kinds},
            preload=np.array([self.task.preload_bytes], np.int64),
            loss=np.zeros(1),
            read=np.zeros(1, np.int64),
        )

    def _choices(self, multipliers: Multipliers, k: int, room: int) -> Int64Array:
        """The options of block ``k`` to try: all if there is room, else the cheapest and a spread.

        The spread covers, from the fastest on, the options that only slower ones improve on.
        """
        loss = self.options.loss[k]
        usable = np.flatnonzero(np.isfinite(loss))
        if len(usable) <= max(MOST_CHOICES, room):
            return usable
        read_s, decode_s = self.bytes_s[k] + self.requests_s[k], self.options.decode_s[k]
        cost = multipliers.storage[k] * read_s + multipliers.decode[k] * decode_s
        cost += _FREE * multipliers.multiplier * (read_s + decode_s)
        order = usable[np.argsort(cost[usable], kind="stable")]
        least = np.minimum.accumulate(loss[order])
        front = order[np.flatnonzero(np.diff(least, prepend=math.inf) < 0.0)]
        cheapest = np.argsort(loss[front] + cost[front], kind="stable")[: MOST_CHOICES // 2]
        spread = np.linspace(0, len(front) - 1, MOST_CHOICES // 2).round().astype(np.int64)
        return front[np.union1d(cheapest, spread)]

    def advance(self, labels: Labels, k: int, option: Int64Array) -> Labels:
        """Run block ``k`` with one option a label: ``costs.run_steps`` for many at once.

        ``option`` is int64 ``[labels]``. Changes ``labels``, which were run up to block ``k - 1``,
        and returns them.
        """
        options, storage = self.options, self.task.costs.storage
        read_bytes, held = options.read_bytes[k, option], labels.preload
        reads = read_bytes > held
        requests = options.requests[k, option]
        if held.any():  # else the preload is used up and saves no more requests
            for starts in options.breaks:
                requests = requests - (starts[k, option] <= held)
        missing = np.where(reads, read_bytes - held, 0)
        read_s = requests * storage.request_s + missing / storage.bytes_per_s
        slot = np.maximum(labels.storage, labels.ring[:, -1])
        labels.storage = np.where(reads, slot + read_s, labels.storage)
        labels.preload = np.maximum(held - read_bytes, 0)
        labels.read = labels.read + missing
        buffers = labels.buffers[self.kinds[k]]
        free = np.maximum(labels.decode, buffers[:, -1])
        labels.decode = np.maximum(labels.storage, free) + options.decode_s[k, option]
        pushed = np.column_stack((labels.decode, labels.ring[:, :-1]))
        labels.ring = np.where(reads[:, None], pushed, labels.ring)
        labels.compute = np.maximum(labels.compute, labels.decode) + self.course.compute_s[k]
        pushed = np.column_stack((labels.compute, buffers[:, :-1]))
        labels.buffers[self.kinds[k]] = pushed
        labels.loss = labels.loss + options.loss[k, option]
        return labels

    def _in_time(self, labels: Labels, k: int, ceiling: float) -> Int64Array:
        """Labels that can still end by the limit with a loss up to ``ceiling``."""
        limit = self._latest[:, k] + _ROUNDING
        fits = self._storage(labels) <= limit[0]
        fits &= (labels.decode <= limit[1]) & (labels.compute <= limit[2])
        fits &= labels.loss <= ceiling - self._loss_to_come[k] + self.tie
        return np.flatnonzero(fits)

    def _promising(
        self, labels: Labels, multipliers: Multipliers, k: int, index: Int64Array, most: int
    ) -> Int64Array:
        """The ``most`` labels of ``index`` to go on with, always including the fastest.

        A label's worth is its loss plus a bound on the loss to come at its lateness. The best of
        each range of losses are taken first, so that some are early and some late, then the best
        of all; labels far behind the best are ignored. The best of each range of lateness are kept
        in reserve, because multipliers do not see everything that may delay the others.
        """
        late_s = self._late_s(labels, k)[index]
        value = labels.loss[index] + multipliers.loss_to_come(k, late_s)
        order = np.argsort(value, kind="stable")
        index, value, late_s = index[order], value[order], late_s[order]
        early_s = (late_s[0] - late_s) * (RESERVE / max(late_s[0] - late_s.min(), _ROUNDING))
        _, aside = np.unique(np.maximum(early_s, -1.0).astype(np.int64), return_index=True)
        aside = index[np.append(aside, late_s.argmin())]
        behind = value[0] + multipliers.multiplier * CLOSE * self.course.limit_s / len(self.kinds)
        close = index[: max(most, int(np.searchsorted(value, behind)))]
        losses = labels.loss[close] - labels.loss[close].min()
        span = max(float(losses.max()), self.tie)
        _, first = np.unique((losses * (most / span)).astype(np.int64), return_index=True)
        rest = np.setdiff1d(np.arange(len(close)), first, assume_unique=True)
        best = close[np.concatenate((first, rest))[: max(most - len(aside), most // 2)]]
        return np.union1d(best, aside)

    def _late_s(self, labels: Labels, k: int) -> Float64Array:
        """How late each label would be if the blocks to come took the relaxed times."""
        storage, decode, compute = self._relaxed[:, k]
        late_s: Float64Array = np.maximum(self._storage(labels) - storage, labels.decode - decode)
        late_s = np.maximum(late_s, labels.compute - compute)
        for kind, buffers in labels.buffers.items():
            latest = [j for j in range(k, -1, -1) if self.kinds[j] == kind]
            for place, j in enumerate(latest[: buffers.shape[1]]):
                if j < k and self._taken_over[j]:
                    late_s = np.maximum(late_s, buffers[:, place] - self._relaxed[2, j])
        for ahead, due in enumerate(self._slot_due[k + 1 :][: self.course.slots], start=1):
            late_s = np.maximum(late_s, labels.ring[:, -ahead] - due)
        return late_s

    def _storage(self, labels: Labels) -> Float64Array:
        """When storage is done, less the time that the rest of the preload will save."""
        return labels.storage - labels.preload / self.task.costs.storage.bytes_per_s


def _follow(trace: Sequence[tuple[Int64Array, Int64Array]], label: int) -> list[int]:
    """The options of a label, from the last block back to the first."""
    options = []
    for parent, option in reversed(trace):
        options.append(int(option[label]))
        label = int(parent[label])
    return options[::-1]


def _course(task: SearchProblem, kinds: Sequence[str]) -> Course:
    costs = task.costs
    users = {kind: [-1] * count for kind, count in costs.buffers.items()}
    before = []
    for k, kind in enumerate(kinds):
        before.append(users[kind].pop(0))
        users[kind].append(k)
    rows_s = costs.tokenize_s + costs.rows_s
    return Course(
        start_s=rows_s - task.preload_bytes / costs.storage.bytes_per_s,
        rows_s=rows_s,
        embed_s=rows_s + costs.embed_s,
        compute_s=costs.compute_s(kinds),
        before=before,
        slots=task.read_ahead + 1,
        limit_s=task.limit_s,
    )


def _latest_ends(
    course: Course, slot_before: Sequence[int], read_s: Float64Array, decode_s: Float64Array
) -> tuple[Float64Array, list[float]]:
    """When storage, decode and compute of each block must end, ``[3, n]``, to meet the limit.

    Blocks take the seconds given. Also returns the latest start of the first on each lane.
    """
    count = len(read_s)
    latest = np.empty((3, count))
    starts = [math.inf] * 3  # of the next block, on each lane
    users = [math.inf] * count  # of the decode that uses the block's working buffer next
    readers = [math.inf] * count  # of the read that uses the block's slot next
    for k in reversed(range(count)):
        compute = min(course.limit_s, starts[2], users[k])
        decode = min(compute - course.compute_s[k], starts[1], readers[k])
        storage = min(decode - decode_s[k], starts[0])
        latest[:, k] = storage, decode, compute
        starts = [storage - read_s[k], decode - decode_s[k], compute - course.compute_s[k]]
        if course.before[k] >= 0:
            users[course.before[k]] = starts[1]
        if slot_before[k] >= 0:
            readers[slot_before[k]] = starts[0]
    return latest, starts
