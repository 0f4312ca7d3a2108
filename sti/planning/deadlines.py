"""Which planes still come in time while a run is under way. Pure: told the time, it asks no clock.

In: what is left of the run by its prediction (``Remainder``), when its answer is due, and what it
has taken so far. Out: for the step that is to be read next, how many of its planes to read: all of
them while everything that follows fits; else as many as are its share of what can still be read,
so that the last steps do not pay for the first. Storage and computation are taken to go on as they
went. A run that cannot be in time leaves out what makes it later than it has to be.
"""

from __future__ import annotations

import numpy as np

from sti.planning.remainder import Remainder

_REMEMBERED = 3
"""Reads by whose median the next ones are foreseen: one that stalls says nothing of others."""
_SLOWEST = 100.0
"""How many times slower than predicted anything is taken to go on."""
_SPARE, _END = 0.1, 0.03
"""Shares of what is predicted to be left, and of the whole run, that are kept free for what nobody
foresees, at most; no more than a half and a quarter of what the plan kept free itself."""
_WORSE = 0.1
"""By how much of what is left a run may be later than it has to be, if it is late anyway: planes
that would save less are worth more than the time."""


class Watch:
    """One run and its deadline.

    ``planes`` and ``has_read`` belong to the thread that reads; ``begins`` and ``has_computed`` to
    the threads that compute, each with a number of its own.

    Args:
        remainder: of the run's plan, which has a prediction.
        deadline: when the answer is due, by the clock of all times given here, in seconds.
        floor: nothing is left out below this share of the full model's metric.
    """

    def __init__(self, remainder: Remainder, deadline: float, *, floor: float) -> None:
        self._of, self._deadline, self._floor = remainder, deadline, floor
        plan, predicted = remainder.plan, remainder.plan.predicted
        assert predicted is not None, "a plan without a prediction"
        latency_s = plan.target.latency_s or predicted.total_s
        kept = latency_s / predicted.total_s - 1.0
        self._margin = 1.0 + min(_SPARE, max(0.0, kept / 2.0))
        self._end_s = predicted.total_s * min(_END, max(0.0, kept / 4.0))
        # What was done is noted, and compared with the prediction once that is needed: most runs
        # are in time.
        self._read: list[tuple[int, int, float]] = []
        self._computed: list[list[tuple[str, float]]] = [[] for _ in range(plan.threads.compute)]
        self._begun = 0
        self._behind = False
        """Whether something was too late before, so that times are not as predicted."""
        self._spare: float | None = None

    def begins(self, name: str) -> None:
        """A thread begins to compute a step."""
        self._begun = max(self._begun, self._of.numbers[name] + 1)

    def has_computed(self, name: str, took_s: float, *, thread: int) -> None:
        """It has computed its share of the step."""
        self._computed[thread].append((name, took_s))

    def planes(self, number: int, now: float, *, have: int = 0) -> int:
        """How many of a step's planes to read; at least those that are always there.

        Args:
            number: of the step.
            now: the time.
            have: planes that were read already.
        """
        most = self._of.planes[number]
        left_s = self._deadline - now - self._end_s
        usual = not (have or self._behind)
        if usual and left_s >= self._margin * self._of.usual_left_s[number]:
            return most
        share = self._share(number, left_s, have)
        if share >= 1.0:
            return most
        self._behind = True
        return max(have, self._worth(number, share, have))

    def has_read(self, number: int, planes: int, took_s: float) -> None:
        """The step was read up to so many planes, in so many seconds."""
        self._read.append((number, planes, took_s))
        if planes < self._of.planes[number]:
            self._spare = self._left() - self._of.missing(number, planes)

    def _left(self) -> float:
        """Gains that may still be missed."""
        if self._spare is None:
            self._spare = self._of.spare(self._floor)
        return self._spare

    def _worth(self, number: int, share: float, have: int) -> int:
        """The planes of a step of which such a share may be read beyond the least."""
        reads, left = self._of.reads[number], self._left()
        planes, least_s = reads.most, reads.seconds[max(have, reads.least)]
        room_s = least_s + share * (reads.seconds[reads.most] - least_s)
        while planes > reads.least and reads.seconds[planes] > room_s:
            if self._of.missing(number, planes - 1) > left:
                break
            planes -= 1
        return planes

    def _share(self, number: int, left_s: float, have: int) -> float:
        """How much of what this and later steps read beyond the least can be read in time."""
        of, slower, working = self._of, self._reading(), self._working()
        had_s = of.reads[number].seconds[have]
        full_s = slower * (of.most_read_s[number + 1 :] - of.most_read_s[number] - had_s)
        lean_s = of.least_read_s[number + 1 :] - of.least_read_s[number] - had_s
        lean_s = slower * np.maximum(lean_s, 0.0)
        (full_after_s, compute_s), (lean_after_s, _) = of.most, of.least
        behind_s = 0.0
        if of.serial:
            full_s = full_s[-1:] + working * full_after_s[number]
            lean_s = lean_s[-1:] + working * lean_after_s[number]
        else:
            full_s = full_s + working * full_after_s[number:]
            lean_s = lean_s + working * lean_after_s[number:]
            behind_s = working * compute_s[self._begun]
            if not of.plan.threads.decode and self._begun < number:
                # Those who compute decode first: what they are behind with, and the rest of it.
                spared_s = working * (full_after_s[number] - lean_after_s[number])
                full_s = np.append(full_s, behind_s)
                lean_s = np.append(lean_s, max(0.0, behind_s - spared_s))
                behind_s = 0.0
        room_s, soonest_s = left_s / self._margin, max(behind_s, float(lean_s.max()))
        if soonest_s > room_s:
            room_s = (1.0 + _WORSE) * soonest_s
        tight = full_s > room_s
        if not tight.any():
            return 1.0
        shares = (room_s - lean_s[tight]) / np.maximum(full_s[tight] - lean_s[tight], 1e-12)
        return max(0.0, float(shares.min()))

    def _reading(self) -> float:
        """How many times slower than predicted reads are, by the median of the last ones."""
        ratios = [1.0] * (_REMEMBERED - 1)
        for number, planes, took_s in self._read[-_REMEMBERED:]:
            expected_s = self._of.reads[number].seconds[planes]
            if expected_s > 0.0:
                ratios.append(took_s / expected_s)
        return min(sorted(ratios[-_REMEMBERED:])[_REMEMBERED // 2], _SLOWEST)

    def _working(self) -> float:
        """How many times slower than predicted steps were computed so far; at least 1."""
        done = [item for thread in self._computed for item in tuple(thread)]
        took_s = sum(took for _, took in done)
        expected_s = sum(self._of.computing_s.get(name, 0.0) for name, _ in done)
        return min(_SLOWEST, max(1.0, took_s / expected_s)) if expected_s > 0.0 else 1.0
