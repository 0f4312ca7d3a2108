"""Which options of a block are worth trying: one option for each of its groups, together.

All choices where there is room. Else those that no cheaper one beats in loss, at the worth that the
multipliers of ``sti.planning.lagrange`` give to seconds. Deciding block by block, a search is as
short as if blocks had no groups. Knows nothing of the pipeline's state. In: tables of options and
multipliers. Out: rows of options. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.planning.lagrange import Multipliers
from sti.planning.option_tables import OptionTables

MOST_CHOICES = 48
"""Choices tried per block; more where there is room."""
_FREE = 1e-3
"""Share of the full multiplier for seconds of a lane that nothing waits for."""


class Choices:
    """The choices of every block of a submodel, at fixed multipliers."""

    def __init__(
        self, options: OptionTables, read_s: Float64Array, multipliers: Multipliers
    ) -> None:
        """``read_s``: ``[n, o]``, seconds of storage without a preload."""
        self._loss, decode_s = options.loss, options.decode_s
        self._usable = np.isfinite(options.loss)
        self._counts: list[int] = self._usable.sum(axis=1).tolist()
        free = _FREE * multipliers.multiplier
        cost: Float64Array = (multipliers.storage[:, None] + free) * read_s
        cost += (multipliers.decode[:, None] + free) * decode_s
        cost += (multipliers.compute[:, None] + free) * options.compute_s
        self._cost = cost = np.where(self._usable, cost, np.inf)
        order = np.argsort(cost, axis=1, kind="stable")
        least = np.minimum.accumulate(np.take_along_axis(self._loss, order, axis=1), axis=1)
        better = np.diff(least, axis=1, prepend=np.inf) < 0.0
        self._fronts = [options[kept] for options, kept in zip(order, better, strict=True)]
        """For each group the options that no cheaper one beats in loss, the cheapest first."""

    def of(self, block: Sequence[int], room: int) -> Int64Array:
        """Choices for the groups of a block, ``[choices, groups]``: all if there is room for them.

        Else groups are joined one by one: with all their options while there is room, and then
        with those that no cheaper one beats in loss. Where even these are too many, half of them
        are those of least loss plus cost, and the rest are spread evenly.

        Args:
            block: the places of its groups.
            room: how many choices there should be, if they are more than ``MOST_CHOICES``.
        """
        most = max(MOST_CHOICES, room)
        # Without room for all, fronts from the start: joining whole groups first would fill it.
        narrow = prod(self._counts[k] for k in block) > most and room <= MOST_CHOICES
        chosen, cost, loss = np.zeros((1, 0), np.int64), np.zeros(1), np.zeros(1)
        for k in block:
            whole = not narrow and len(chosen) * self._counts[k] <= most
            options = self._usable[k].nonzero()[0] if whole else self._fronts[k]
            cost = (cost[:, None] + self._cost[k][options]).ravel()
            loss = (loss[:, None] + self._loss[k][options]).ravel()
            kept = np.arange(len(cost)) if len(cost) <= most else _best(cost, loss)
            before, last = np.divmod(kept, len(options))
            chosen = np.concatenate((chosen[before], options[last][:, None]), axis=1)
            cost, loss = cost[kept], loss[kept]
        return chosen


def _best(cost: Float64Array, loss: Float64Array) -> Int64Array:
    """The places of what no cheaper one beats in loss, or of a few of them; cheapest first."""
    order = np.argsort(cost, kind="stable")
    falling = loss[order]
    least = np.minimum.accumulate(falling)
    front = order[np.append(0, np.flatnonzero(least[1:] < least[:-1]) + 1)]
    return _few(cost, loss, front)


def _few(cost: Float64Array, loss: Float64Array, front: Int64Array) -> Int64Array:
    """At most ``MOST_CHOICES`` of the places in ``front``."""
    if len(front) <= MOST_CHOICES:
        return front
    half = MOST_CHOICES // 2
    kept = np.zeros(len(front), bool)
    kept[np.argsort(loss[front] + cost[front], kind="stable")[:half]] = True
    kept[np.arange(half) * (len(front) - 1) // (half - 1)] = True
    return front[kept]
