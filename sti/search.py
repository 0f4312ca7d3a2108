"""The fidelities of one submodel: least loss such that its last block is computed by a limit.

A beam search over the blocks in order of execution. A label is a choice for the blocks so far with
the exact state it leaves the pipeline in (lanes, ring of slots, working buffers, preload left), so
a label that reaches the end is a plan that meets the limit. Labels that cannot end in time go;
where too many are left, those go whose loss and lateness, at ``sti.prices``, promise least, but
some of every kind stay: unlike labels are what still fits in the end. Where nothing had to go,
the answer is the optimum.

Swapping pairs of options, from the priced choice on, was the alternative tried: about the same
loss at BERT-base size, for several times the work, and no proof where models are small.
Knows nothing of targets or of other submodels.
In: a submodel, its costs and its limit. Out: shard counts of every block. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sti.costs import RunCosts
from sti.manifest import Block
from sti.options import Floats, Ints, tabulate
from sti.prices import Course, Prices, find_prices

MOST_CHOICES = 48
"""Options tried per block, and more where labels are few."""
MOST_CANDIDATES = 80_000
"""Labels times options looked at, over all blocks."""
CLOSE = 0.1
"""Labels behind the best by this share of a block's mean time, at its price, are looked at."""
_FREE = 1e-3
"""Share of the full price for seconds of a lane that is not waited for."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Task:
    """One submodel, and what its run may take."""

    blocks: Sequence[Block]
    width: int
    costs: RunCosts
    limit_s: float
    """When the last block must be computed, in seconds from the text's arrival."""
    preload_bytes: int
    read_ahead: int


def search(task: Task, *, ceiling: float) -> list[tuple[int, ...]] | None:
    """The shard counts of every block, or None where no choice with a loss up to ``ceiling`` fits.

    Equal losses are settled by fewer bytes read, then by an earlier end.
    """
    beam = _Beam(task)
    return beam.run(ceiling) if beam.reachable else None


@dataclass(slots=True)
class _Labels:
    """Choices for the blocks so far: one entry a label in every array."""

    storage: Floats
    decode: Floats
    compute: Floats
    ring: Floats  # [labels, slots]: when each slot was or will be free, the latest first
    buffers: dict[str, Floats]  # when the working buffer of a block kind is free
    preload: Ints  # bytes of the budget that are left
    loss: Floats
    read: Ints  # bytes read from storage

    def take(self, index: Ints) -> _Labels:
        return _Labels(
            self.storage[index],
            self.decode[index],
            self.compute[index],
            self.ring[index],
            {kind: ends[index] for kind, ends in self.buffers.items()},
            self.preload[index],
            self.loss[index],
            self.read[index],
        )


class _Beam:
    """The search of one task: tables, prices and latest ends, then block after block."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.options = options = tabulate(task.blocks, task.width, task.costs)
        self.kinds = [block.kind for block in task.blocks]
        self.course = _course(task, self.kinds)
        storage = task.costs.storage
        self.bytes_s: Floats = options.read_bytes / storage.bytes_per_s
        self.requests_s: Floats = options.requests.astype(np.float64) * storage.request_s
        decode_s: Floats = options.decode_s.min(axis=1)
        self._latest, first_s = _latest_ends(self.course, self._least_read_s(), decode_s)
        self._priced = self._latest  # until there are prices
        self.reachable = self.course.start_s <= first_s[0] and self.course.embed_s <= first_s[2]
        least_loss = options.loss.min(axis=1)
        self._loss_to_come = least_loss.sum() - np.cumsum(least_loss)
        self.tie = _ROUNDING * float(options.largest_loss.sum())

    def run(self, ceiling: float) -> list[tuple[int, ...]] | None:
        """Extend labels block by block; the counts of the best that reaches the end."""
        prices = find_prices(
            self.course, self.options, self.bytes_s, self.requests_s, self.task.preload_bytes
        )
        if prices.bound > ceiling + self.tie:
            return None
        self._priced, _ = _latest_ends(self.course, *prices.mean_s)
        candidates = MOST_CANDIDATES // len(self.kinds)
        labels = self._start()
        trace: list[tuple[Ints, Ints]] = []
        for k in range(len(self.kinds)):
            choices = self._choices(prices, k, candidates // len(labels.loss))
            parent = np.repeat(np.arange(len(labels.loss)), len(choices))
            option = np.tile(choices, len(labels.loss))
            labels = self._advance(labels.take(parent), k, option)
            index = self._in_time(labels, k, ceiling)
            most = candidates // min(len(choices), MOST_CHOICES)
            if len(index) > most:
                index = self._promising(labels, prices, k, index, most)
            if not len(index):
                return None
            labels = labels.take(index)
            trace.append((parent[index], option[index]))
        ties = np.flatnonzero(labels.loss <= labels.loss.min() + self.tie)
        order = np.lexsort((labels.compute[ties], labels.read[ties]))
        return self._follow(trace, int(ties[order[0]]))

    def _start(self) -> _Labels:
        rows_s, slots = self.course.rows_s, self.task.read_ahead + 1
        return _Labels(
            storage=np.array([rows_s]),
            decode=np.zeros(1),
            compute=np.array([self.course.embed_s]),
            ring=np.zeros((1, slots)),
            buffers={kind: np.zeros(1) for kind in self.kinds},
            preload=np.array([self.task.preload_bytes], np.int64),
            loss=np.zeros(1),
            read=np.zeros(1, np.int64),
        )

    def _choices(self, prices: Prices, k: int, room: int) -> Ints:
        """The options of block ``k`` to try: all if there is room, else the cheapest and a spread.

        The spread is over the options that only a slower one betters, from the fastest on.
        """
        loss = self.options.loss[k]
        usable = np.flatnonzero(np.isfinite(loss))
        if len(usable) <= max(MOST_CHOICES, room):
            return usable
        read_s, decode_s = self.bytes_s[k] + self.requests_s[k], self.options.decode_s[k]
        cost = prices.storage[k] * read_s + prices.decode[k] * decode_s
        cost += _FREE * prices.strength * (read_s + decode_s)
        order = usable[np.argsort(cost[usable], kind="stable")]
        least = np.minimum.accumulate(loss[order])
        front = order[np.flatnonzero(np.diff(least, prepend=math.inf) < 0.0)]
        cheapest = np.argsort(loss[front] + cost[front], kind="stable")[: MOST_CHOICES // 2]
        spread = np.linspace(0, len(front) - 1, MOST_CHOICES // 2).round().astype(np.int64)
        return front[np.union1d(cheapest, spread)]

    def _advance(self, labels: _Labels, k: int, option: Ints) -> _Labels:
        """Run block ``k`` with one option a label: ``costs.run_steps`` for many at once."""
        options, storage = self.options, self.task.costs.storage
        read_bytes, held = options.read_bytes[k, option], labels.preload
        reads = read_bytes > held
        requests = options.requests[k, option]
        if held.any():  # else it is spent: no request is spared any more
            for starts in options.breaks:
                requests = requests - (starts[k, option] <= held)
        missing = np.where(reads, read_bytes - held, 0)
        read_s = requests * storage.request_s + missing / storage.bytes_per_s
        slot = np.maximum(labels.storage, labels.ring[:, -1])
        labels.storage = np.where(reads, slot + read_s, labels.storage)
        labels.preload = np.maximum(held - read_bytes, 0)
        labels.read = labels.read + missing
        free = np.maximum(labels.decode, labels.buffers[self.kinds[k]])
        labels.decode = np.maximum(labels.storage, free) + options.decode_s[k, option]
        pushed = np.column_stack((labels.decode, labels.ring[:, :-1]))
        labels.ring = np.where(reads[:, None], pushed, labels.ring)
        labels.compute = np.maximum(labels.compute, labels.decode) + self.course.compute_s[k]
        labels.buffers[self.kinds[k]] = labels.compute
        labels.loss = labels.loss + options.loss[k, option]
        return labels

    def _in_time(self, labels: _Labels, k: int, ceiling: float) -> Ints:
        """Labels that can still end by the limit with a loss up to ``ceiling``."""
        limit = self._latest[:, k] + _ROUNDING
        fits = self._storage(labels) <= limit[0]
        fits &= (labels.decode <= limit[1]) & (labels.compute <= limit[2])
        fits &= labels.loss <= ceiling - self._loss_to_come[k] + self.tie
        return np.flatnonzero(fits)

    def _promising(self, labels: _Labels, prices: Prices, k: int, index: Ints, most: int) -> Ints:
        """The ``most`` labels of ``index`` to go on with, and the fastest, which always ends.

        A label is worth its loss and the price of being late against the priced schedule. The
        best of every range of losses go first, so that some are early and some late, then the
        best of all; labels far behind the best are not looked at.
        """
        late_s = self._late_s(labels, k)
        value = labels.loss + prices.strength * late_s
        fastest = index[late_s[index].argmin()]
        index = index[np.argsort(value[index], kind="stable")]
        behind = value[index[0]] + prices.strength * CLOSE * self.course.limit_s / len(self.kinds)
        close = index[: max(most, int(np.searchsorted(value[index], behind)))]
        losses = labels.loss[close] - labels.loss[close].min()
        span = max(float(losses.max()), self.tie)
        _, first = np.unique((losses * (most / span)).astype(np.int64), return_index=True)
        rest = np.setdiff1d(np.arange(len(close)), first, assume_unique=True)
        return np.union1d(close[np.concatenate((first, rest))[:most]], fastest)

    def _late_s(self, labels: _Labels, k: int) -> Floats:
        """By how much each label would miss the limit if the blocks to come took priced times."""
        storage, decode, compute = self._priced[:, k]
        late_s: Floats = np.maximum(self._storage(labels) - storage, labels.decode - decode)
        late_s = np.maximum(late_s, labels.compute - compute)
        for j in set(self.course.before[k + 1 :]):
            if 0 <= j < k:  # its working buffer is still to be taken over
                late_s = np.maximum(late_s, labels.buffers[self.kinds[j]] - self._priced[2, j])
        return late_s

    def _storage(self, labels: _Labels) -> Floats:
        """When storage is through, set back by the time the rest of the preload will save."""
        return labels.storage - labels.preload / self.task.costs.storage.bytes_per_s

    def _least_read_s(self) -> Floats:
        """The least storage time of each block ``[n]``, whatever is chosen for the others."""
        read_bytes = self.options.read_bytes.min(axis=1)
        sure = np.cumsum(read_bytes) - read_bytes >= self.task.preload_bytes
        least_s: Floats = (self.bytes_s + self.requests_s * sure[:, None]).min(axis=1)
        return least_s

    def _follow(self, trace: Sequence[tuple[Ints, Ints]], label: int) -> list[tuple[int, ...]]:
        """The counts of a label, from the last block back to the first."""
        counts = []
        for k in reversed(range(len(trace))):
            parent, option = trace[k]
            counts.append(self.options.counts(k, int(option[label])))
            label = int(parent[label])
        return counts[::-1]


def _course(task: Task, kinds: Sequence[str]) -> Course:
    costs = task.costs
    latest: dict[str, int] = {}
    before = []
    for k, kind in enumerate(kinds):
        before.append(latest.get(kind, -1))
        latest[kind] = k
    rows_s = costs.tokenize_s + costs.rows_s
    return Course(
        start_s=rows_s - task.preload_bytes / costs.storage.bytes_per_s,
        rows_s=rows_s,
        embed_s=rows_s + costs.embed_s,
        compute_s=costs.compute_s(kinds),
        before=before,
        limit_s=task.limit_s,
    )


def _latest_ends(course: Course, read_s: Floats, decode_s: Floats) -> tuple[Floats, list[float]]:
    """When storage, decode and compute of each block must end, ``[3, n]``, to meet the limit.

    Later blocks are taken to be as fast as they can be, and slots of the ring to be free. Also
    returns the latest start of the first block on each lane.
    """
    count = len(read_s)
    latest = np.empty((3, count))
    starts = [math.inf] * 3  # of the block behind, on each lane
    users = [math.inf] * count  # of the decode that takes over the block's working buffer
    for k in reversed(range(count)):
        compute = min(course.limit_s, starts[2], users[k])
        decode = min(compute - course.compute_s[k], starts[1])
        storage = min(decode - decode_s[k], starts[0])
        latest[:, k] = storage, decode, compute
        starts = [storage - read_s[k], decode - decode_s[k], compute - course.compute_s[k]]
        if course.before[k] >= 0:
            users[course.before[k]] = starts[1]
    return latest, starts
