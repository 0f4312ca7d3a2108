"""The fidelities of one submodel: least loss with the last group computed by a limit.

A beam search over the blocks in order of execution: each is given one of its ``choices``, an option
for each of its groups. A label (``sti.planning.labels``) knows the exact state of the run, so one
that reaches the end is a plan that meets the limit. Labels that cannot end in time are dropped. If
too many are left, the least promising (by loss plus lateness, weighted by the multipliers of
``sti.planning.lagrange``) are dropped too, but a diverse set is kept: near the end, a label unlike
the best may be the only one that still fits. If none had to be dropped the answer is the optimum;
otherwise it is still no worse than the best plan made of one or two uniform parts.

Swapping pairs of options, starting from the relaxed choice, was tried instead: about the same loss
at BERT-base size for several times the work, and no proof for small models. So was deciding group
by group: three times the decisions, with a third of the labels each. Knows nothing of targets or
other submodels. "Loss" in this module is the sum of the gains of the planes that are not read,
before the submodel's curve is applied. In: a submodel, its costs and its limit. Out: a lower
bound, then shard counts of every group. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.model.manifest import SliceGroup
from sti.planning.choices import MOST_CHOICES, Choices
from sti.planning.cost_model import RunCosts
from sti.planning.course import Course, course_of
from sti.planning.labels import Labels, SimulatedRun, Successors
from sti.planning.lagrange import find_multipliers, surely_read
from sti.planning.option_tables import tabulate

MOST_CANDIDATES = 100_000
"""Labels times choices looked at, over all blocks together."""
CLOSE = 0.2
"""Labels this far behind the best are still considered, in shares of a block's mean time."""
RESERVE = 16
"""Labels kept in reserve, in case the most promising ones lead nowhere."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """One submodel, and what its run may take."""

    groups: Sequence[SliceGroup]
    width: int
    costs: RunCosts
    limit_s: float
    """When the last block must be connected, in seconds from the text's arrival."""
    preload_bytes: int
    read_ahead: int
    rounding: Mapping[int, float]
    """What narrow products lose (``sti.planning.variants.rounding_loss``)."""

    @property
    def course(self) -> Course:
        """What every choice of options has in common."""
        return course_of(
            self.groups,
            self.costs,
            limit_s=self.limit_s,
            preload_bytes=self.preload_bytes,
            read_ahead=self.read_ahead,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A choice that meets the limit."""

    loss: float
    read: int
    end_s: float
    counts: list[tuple[int, ...]]


class Search:
    """The search of one problem: tables and multipliers first, then block after block.

    Each holds some megabytes of tables, so keep few of them.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self.options = options = tabulate(
            problem.groups, problem.width, problem.costs, problem.rounding
        )
        self.course = course = problem.course
        self.preload_bytes = problem.preload_bytes
        blocks = groupby(range(len(problem.groups)), lambda k: problem.groups[k].tensor)
        self._blocks = [list(places) for _, places in blocks]
        """The places of each block's groups."""
        self.simulated = run = SimulatedRun(options, course, problem.costs)
        read = surely_read(options, problem.preload_bytes)
        read_s = run.bytes_s + run.requests_s * read[:, None]
        least_s = [table.min(axis=1) for table in (read_s, options.decode_s, options.compute_s)]
        self._latest, reachable = course.latest_ends(read, np.array(least_s))
        least_loss = options.loss.min(axis=1)
        self._loss_to_come = least_loss.sum() - np.cumsum(least_loss)
        self.tie = _ROUNDING * float(options.largest_loss.sum())
        self.bound = 0.0
        """No choice that meets the limit has less loss."""
        self.hopeless = not reachable
        """Whether it is clear before any choice is tried that none meets the limit."""
        if self.hopeless:
            return
        self._multipliers = found = find_multipliers(
            course, options, run.bytes_s, run.requests_s, problem.preload_bytes
        )
        self._choices = Choices(options, run.read_s, found)
        self.bound = max(0.0, found.bound - self.tie)
        self._relaxed, _ = course.latest_ends(found.read, found.mean_s)
        # Only of groups read in the relaxed schedule; each label knows which slots it has taken.
        serial_s = course.serial * (found.mean_s[1:].sum(axis=0) + course.connect_s)
        starts = self._relaxed[0] - serial_s - found.mean_s[0]
        self._slot_due: Float64Array = np.where(found.read, np.maximum(starts, 0.0), math.inf)
        self._buffer_due: Float64Array = self._relaxed[2] - course.connect_s

    def run(self, ceiling: float) -> list[tuple[int, ...]] | None:
        """The shard counts of every group; None where no choice with a loss up to ``ceiling`` fits.

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

    def _better(self, one: Found, other: Found) -> bool:
        """Whether one has less loss, or the same loss and fewer bytes or an earlier end."""
        if abs(one.loss - other.loss) > self.tie:
            return one.loss < other.loss
        return (one.read, one.end_s) < (other.read, other.end_s)

    def best_of_two_parts(self, ceiling: float) -> Found | None:
        """The best choice with one fidelity up to some group and another one after it.

        The answer is then never worse than these, and the beam need not find them.
        """
        uniform, count = self.options.uniform, len(self.options.loss)
        levels = np.arange(len(uniform))
        pairs = np.argwhere(levels[:, None] != levels)
        first, then = np.concatenate((np.repeat(pairs, count - 1, axis=0).T, [levels] * 2), axis=1)
        split = np.concatenate((np.tile(np.arange(1, count), len(pairs)), np.zeros_like(levels)))
        losses = np.zeros((len(uniform), count + 1))
        np.cumsum(self.options.loss[np.arange(count), uniform], axis=1, out=losses[:, 1:])
        loss = losses[first, split] + losses[then, -1] - losses[then, split]
        hopeful = np.flatnonzero((loss >= self.bound - self.tie) & (loss <= ceiling + self.tie))
        first, then, split = first[hopeful], then[hopeful], split[hopeful]
        options = uniform.T
        cases = np.where(np.arange(count)[:, None] < split, options[:, first], options[:, then])
        labels = self.simulated.start(self.preload_bytes).take(np.zeros(len(split), np.int64))
        for k in range(count):
            labels = self.simulated.advance(labels, k, cases[k])
        index = np.flatnonzero(
            (labels.ready <= self.course.limit_s + _ROUNDING) & (labels.loss <= ceiling + self.tie)
        )
        if not len(index):
            return None
        return self._found(labels.take(index), lambda label: cases[:, index[label]].tolist())

    def _beam(self, ceiling: float) -> Found | None:
        """The best choice that the beam search finds."""
        candidates = MOST_CANDIDATES // len(self._blocks)
        labels = self.simulated.start(self.preload_bytes)
        trace: list[tuple[Int64Array, Int64Array]] = []
        for block in self._blocks:
            choices = self._choices.of(block, candidates // len(labels.loss))
            before, found = self.simulated.extend(labels, block, choices)
            index = self._in_time(found, block[-1], ceiling)
            # Few choices leave room for more labels, but no more than the next block can try.
            most = candidates // min(len(choices), MOST_CHOICES)
            if len(index) > most:
                index = self._promising(before, found, block[-1], index, most)
            if not len(index):
                return None
            parent, choice = np.divmod(index, len(choices))
            labels = self.simulated.follow(before, found, index)
            trace.append((parent, choices[choice]))
        return self._found(labels, lambda label: _follow(trace, label))

    def _found(self, labels: Labels, options_of: Callable[[int], list[int]]) -> Found:
        """The best of the labels that reached the end."""
        ties = np.flatnonzero(labels.loss <= labels.loss.min() + self.tie)
        best = int(ties[np.lexsort((labels.ready[ties], labels.read[ties]))[0]])
        counts = [self.options.counts(k, option) for k, option in enumerate(options_of(best))]
        return Found(
            float(labels.loss[best]), int(labels.read[best]), float(labels.ready[best]), counts
        )

    def _in_time(self, found: Successors, k: int, ceiling: float) -> Int64Array:
        """Those that can still end by the limit with a loss up to ``ceiling``."""
        limit = (self._latest[:, k] + _ROUNDING).tolist()
        fits = found.settled <= limit[0]
        fits &= found.free_s <= limit[1]
        fits &= found.ready <= limit[2]
        fits &= found.loss <= ceiling - self._loss_to_come[k] + self.tie
        return np.flatnonzero(fits)

    def _promising(
        self, labels: Labels, found: Successors, k: int, index: Int64Array, most: int
    ) -> Int64Array:
        """The ``most`` candidates of ``index`` to go on with, always including the fastest.

        A candidate's worth is its loss plus a bound on the loss to come at its lateness. The best
        of each range of losses are taken first, so that some are early and some late, then the best
        of all; candidates far behind the best are ignored. The best of each range of lateness are
        kept in reserve, because multipliers do not see everything that may delay the others.
        """
        late_s, loss = self._late_s(labels, found, k)[index], found.loss[index]
        value = loss + self._multipliers.loss_to_come(k, late_s)
        order = np.argsort(value, kind="stable")
        value, late_s = value[order], late_s[order]
        early_s = (late_s[0] - late_s) * (RESERVE / max(late_s[0] - late_s.min(), _ROUNDING))
        aside = _first_of_each(np.maximum(early_s, -1.0).astype(np.int64) + 1, RESERVE + 1)
        kept = np.zeros(len(found.loss), bool)
        kept[index[order[aside]]] = kept[index[order[late_s.argmin()]]] = True
        room = max(most - len(aside) - 1, most // 2)
        step = self._multipliers.multiplier * CLOSE * self.course.limit_s / len(self._blocks)
        close = order[: max(most, int(np.searchsorted(value, value[0] + step)))]
        losses = loss[close] - loss[close].min()
        span = max(float(losses.max()), self.tie)
        first = _first_of_each((losses * (most / span)).astype(np.int64), most)
        rest = np.ones(len(close), bool)
        rest[first] = False
        best = np.concatenate((first, np.flatnonzero(rest)))[:room]
        kept[index[close[best]]] = True
        return np.flatnonzero(kept)

    def _late_s(self, labels: Labels, found: Successors, k: int) -> Float64Array:
        """How late each candidate would be if the groups to come took the relaxed times.

        Slots and working buffers that the group has not taken are those of the labels before it.
        """
        storage, free, ready = self._relaxed[:, k].tolist()
        late_s: Float64Array = np.maximum(found.settled - storage, found.free_s - free)
        np.maximum(late_s, found.ready - ready, out=late_s)
        older_s = np.full(len(labels.loss), -math.inf)
        for place, end in enumerate(labels.buffers[: min(k, self.course.buffers - 1)], start=1):
            np.maximum(older_s, end - self._buffer_due[k - place], out=older_s)
        slots, dues = labels.ring, self._slot_due[k + 1 :][: len(labels.ring)].tolist()

        def with_slots(ends: Sequence[Float64Array]) -> Float64Array:
            """Lateness of what was before, ``[labels, 1]``. ``ends``: of slots, the next first."""
            late_s = older_s
            for end, due in zip(ends, dues, strict=False):
                late_s = np.maximum(late_s, end - due)
            return late_s[:, None]

        rows = late_s.reshape(len(labels.loss), -1)
        taken_s = with_slots(slots[-2::-1])
        if found.reads is None:
            np.maximum(rows, taken_s, out=rows)
        else:
            reads = found.reads.reshape(rows.shape)
            np.maximum(rows, np.where(reads, taken_s, with_slots(slots[::-1])), out=rows)
        if len(dues) == len(slots):  # the group's own slot is the last to be taken over
            own_s = found.decoded - dues[-1]
            if found.reads is not None:
                own_s[~found.reads] = -math.inf
            np.maximum(late_s, own_s, out=late_s)
        return late_s


def _follow(trace: Sequence[tuple[Int64Array, Int64Array]], label: int) -> list[int]:
    """The options of a label, from the last block back to the first."""
    options: list[int] = []
    for parent, chosen in reversed(trace):
        options = [*chosen[label].tolist(), *options]
        label = int(parent[label])
    return options


def _first_of_each(ranks: Int64Array, most: int) -> Int64Array:
    """The place of the first entry of each rank from 0 to ``most``; ranks without one left out."""
    first = np.full(most + 1, len(ranks))
    np.minimum.at(first, ranks, np.arange(len(ranks)))
    return first[first < len(ranks)]
