"""Which options of a block are tried: all where there is room, else those that pay."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest

from sti.arrays import Float64Array
from sti.device.lanes import PIPELINED
from sti.model.workload import Workload
from sti.planning.choices import MOST_CHOICES, Choices
from sti.planning.cost_model import run_costs
from sti.planning.lagrange import Multipliers
from sti.planning.option_tables import OptionTables, tabulate
from tests.support.synthetic import LADDER, make_manifest, make_profile


def choices_of(
    seed: int, slices: int, groups: int, ladder: tuple[int, ...] = (2, 4, 8)
) -> tuple[OptionTables, Choices, Float64Array]:
    """Tables of one block, its choices at random multipliers, and each option's cost at them."""
    rng = Random(seed)
    manifest = make_manifest(
        rng, layers=1, slices=slices, ladder=ladder, groups=(groups, 1), orders="ranked"
    )
    costs = run_costs(manifest, make_profile(), Workload(1, 8), slices, threads=PIPELINED)
    options = tabulate(manifest.block(0, "attention"), slices, costs, {})
    read_s: Float64Array = options.read_bytes * 1e-9 + options.requests * 6e-5
    worth = np.array([[rng.uniform(0.0, 2e3) for _ in range(groups)] for _ in range(3)])
    nothing = np.zeros(0)
    multipliers = Multipliers(
        multiplier=2e3,
        storage=worth[0],
        decode=worth[1],
        compute=worth[2],
        mean_s=nothing,
        read=np.ones(groups, bool),
        bound=0.0,
        multipliers=nothing,
        bases=nothing,
    )
    tables = (read_s, options.decode_s, options.compute_s)
    cost = sum((each[:, None] + 2.0) * table for each, table in zip(worth, tables, strict=True))
    return options, Choices(options, read_s, multipliers), np.asarray(cost)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_where_there_is_room_all_choices_are_tried(groups: int) -> None:
    options, choices, _ = choices_of(1, 4, groups)
    usable = [np.flatnonzero(np.isfinite(loss)).tolist() for loss in options.loss]
    everything = sorted(product(*usable))
    found = choices.of(range(groups), len(everything))
    assert sorted(map(tuple, found.tolist())) == everything


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("groups", [2, 3])
def test_else_those_that_no_cheaper_one_beats_are_among_them(seed: int, groups: int) -> None:
    options, choices, cost = choices_of(seed, 5, groups)
    usable = [np.flatnonzero(np.isfinite(loss)).tolist() for loss in options.loss]
    places, front = np.arange(groups), []
    least = np.inf
    rows = np.array(list(product(*usable)))
    costs = cost[places, rows].sum(axis=1)
    losses = options.loss[places, rows].sum(axis=1)
    for place in np.argsort(costs, kind="stable"):
        if losses[place] < least - 1e-12:
            least = losses[place]
            front.append((costs[place], least))
    found = choices.of(range(groups), 0)
    assert len(found) <= MOST_CHOICES
    assert len(front) <= MOST_CHOICES
    pairs = [(cost[places, row].sum(), options.loss[places, row].sum()) for row in found]
    missed = [min(abs(a / c - 1) + abs(b - d) for a, b in pairs) for c, d in front]
    assert max(missed) <= 1e-9


@pytest.mark.parametrize("room", [0, MOST_CHOICES, 100, 1000, 10_000])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_there_are_no_more_than_there_is_room_for_and_the_ends_are_among_them(
    groups: int, room: int
) -> None:
    options, choices, cost = choices_of(3, 12, groups, LADDER)
    found = choices.of(range(groups), room)
    assert found.shape == (len(found), groups)
    assert len(np.unique(found, axis=0)) == len(found) <= max(room, MOST_CHOICES)
    places = np.arange(groups)
    losses, costs = options.loss[places, found].sum(axis=1), cost[places, found].sum(axis=1)
    usable = np.where(np.isfinite(options.loss), cost, np.inf)
    assert losses.min() == pytest.approx(options.loss.min(axis=1).sum())
    assert costs.min() == pytest.approx(usable.min(axis=1).sum())
