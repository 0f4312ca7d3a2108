"""The fewest bytes for a given loss: leaves out planes whose absence made no measurable difference.

Up to some loss, no difference from the full model was measurable when the pack was ranked. A plan
below that loss reads planes that nobody would miss; leaving them out saves storage, energy and
time. Pure. In: the options of a submodel's groups, and the loss allowed. Out: one option per group.
Knows nothing of time: the planner checks that the result still meets the deadline.
"""

from __future__ import annotations

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.planning.option_tables import OptionTables

_STEPS = 60
"""Halvings of the multiplier's logarithm, within a range that holds every sensible one."""
_LEAST, _MOST = -30.0, 60.0


def fewest_bytes(options: OptionTables, most_loss: float) -> list[tuple[int, ...]] | None:
    """The shard counts of every group with the fewest bytes and a loss up to ``most_loss``.

    Each group's option is chosen on its own at a common Lagrange multiplier (bytes a unit of loss),
    the lowest at which the loss is small enough. The loss still allowed is then spent one group at
    a time, where it saves the most bytes. The result may be a few bytes above the optimum where
    several groups would have to change together.

    Returns:
        None where no choice has so little loss.
    """
    if float(options.loss.min(axis=1).sum()) > most_loss:
        return None
    low, high = _LEAST, _MOST
    chosen: Int64Array = options.loss.argmin(axis=1)
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        found = _cheapest(options, 2.0**middle)
        if _loss(options, found) <= most_loss:
            chosen, high = found, middle
        else:
            low = middle
    _spend(options, chosen, most_loss)
    return [options.counts(group, int(option)) for group, option in enumerate(chosen)]


def _cheapest(options: OptionTables, multiplier: float) -> Int64Array:
    """For each group the option of least bytes plus ``multiplier`` times loss; ``[n]``."""
    cost: Float64Array = options.read_bytes + multiplier * options.loss
    found: Int64Array = cost.argmin(axis=1)
    return found


def _spend(options: OptionTables, chosen: Int64Array, most_loss: float) -> None:
    """Switch to options with fewer bytes as long as the loss allows it; in place."""
    groups = np.arange(len(chosen))
    while True:
        slack = most_loss - _loss(options, chosen)
        lost = options.loss - options.loss[groups, chosen][:, None]
        saved = options.read_bytes[groups, chosen][:, None] - options.read_bytes
        saved = np.where(lost <= slack, saved, 0)
        group, option = np.unravel_index(int(saved.argmax()), saved.shape)
        if saved[group, option] <= 0:
            return
        before, chosen[group] = chosen[group], option
        if _loss(options, chosen) > most_loss:  # sums in another order differ by a rounding
            chosen[group] = before
            return


def _loss(options: OptionTables, chosen: Int64Array) -> float:
    return float(options.loss[range(len(chosen)), chosen].sum())
