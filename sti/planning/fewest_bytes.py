"""The fewest bytes for a loss that is small enough: what calibration cannot tell is not read.

Up to some loss a pack's calibration saw no difference to the full model. A plan below it reads
planes that nobody will miss; here it gives them back, which spares storage, battery and time. Pure.
In: the staircases of a submodel's blocks, and how much may be missing. Out: one staircase a block.
Knows nothing of time: the planner checks that what comes out is still in time.
"""

from __future__ import annotations

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.planning.option_tables import OptionTables

_STEPS = 60
"""Halvings of the price's logarithm, from a range that holds every sensible price."""
_LEAST, _MOST = -30.0, 60.0


def fewest_bytes(options: OptionTables, most_loss: float) -> list[tuple[int, ...]] | None:
    """The shard counts of every block with the fewest bytes and a loss up to ``most_loss``.

    Blocks are chosen one by one at a common price of a loss in bytes, the lowest price at which
    the loss is small enough (Lagrange); what loss is then left over is spent block by block, always
    where it saves most. A few bytes more than the fewest, where several blocks would have to give
    way together.

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
    return [options.counts(block, int(option)) for block, option in enumerate(chosen)]


def _cheapest(options: OptionTables, price: float) -> Int64Array:
    """For each block the option with the fewest bytes, its loss charged at ``price``; ``[n]``."""
    cost: Float64Array = options.read_bytes + price * options.loss
    found: Int64Array = cost.argmin(axis=1)
    return found


def _spend(options: OptionTables, chosen: Int64Array, most_loss: float) -> None:
    """Change options while one can be had for fewer bytes within the loss; in place."""
    blocks = np.arange(len(chosen))
    while True:
        slack = most_loss - _loss(options, chosen)
        lost = options.loss - options.loss[blocks, chosen][:, None]
        saved = options.read_bytes[blocks, chosen][:, None] - options.read_bytes
        saved = np.where(lost <= slack, saved, 0)
        block, option = np.unravel_index(int(saved.argmax()), saved.shape)
        if saved[block, option] <= 0:
            return
        before, chosen[block] = chosen[block], option
        if _loss(options, chosen) > most_loss:  # sums in another order differ by a rounding
            chosen[block] = before
            return


def _loss(options: OptionTables, chosen: Int64Array) -> float:
    return float(options.loss[range(len(chosen)), chosen].sum())
