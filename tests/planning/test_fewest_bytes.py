"""The fewest bytes for a loss: within the loss, and as few as brute force finds, nearly."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest

from sti.device.lanes import PIPELINED
from sti.model.workload import Workload
from sti.planning.cost_model import run_costs
from sti.planning.fewest_bytes import fewest_bytes
from sti.planning.option_tables import OptionTables, tabulate
from tests.support.synthetic import make_manifest, make_profile

COSTS_OF = make_profile()


def tables(seed: int, *, slices: int = 3, groups: tuple[int, int] = (1, 1)) -> OptionTables:
    manifest = make_manifest(Random(seed), layers=1, slices=slices, groups=groups, orders="ranked")
    costs = run_costs(manifest, COSTS_OF, Workload(1, 8), slices, threads=PIPELINED)
    return tabulate(manifest.groups, slices, costs, {})


def taken(options: OptionTables, counts: list[tuple[int, ...]]) -> tuple[float, int]:
    """Loss and bytes of chosen counts."""
    loss, size = 0.0, 0
    for group, chosen in enumerate(counts):
        places = range(len(options.used[group]))
        option = next(o for o in places if options.counts(group, o) == chosen)
        loss += float(options.loss[group, option])
        size += int(options.read_bytes[group, option])
    return loss, size


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("slices", "groups"), [(3, (1, 1)), (3, (2, 1)), (4, (1, 2))])
def test_few_bytes_are_read_and_no_more_is_lost_than_allowed(
    seed: int, slices: int, groups: tuple[int, int]
) -> None:
    options = tables(seed, slices=slices, groups=groups)
    choices = list(product(*(range(len(used)) for used in options.used)))
    places = np.arange(len(options.used))
    losses = np.array([options.loss[places, chosen].sum() for chosen in choices])
    sizes = np.array([options.read_bytes[places, chosen].sum() for chosen in choices])
    largest = float(losses[np.isfinite(losses)].max())
    for share in (0.0, 0.05, 0.2, 0.5, 1.0):
        counts = fewest_bytes(options, share * largest)
        assert counts is not None
        loss, size = taken(options, counts)
        assert loss <= share * largest
        least = int(sizes[losses <= share * largest].min())
        assert least <= size <= 1.1 * least
    assert taken(options, fewest_bytes(options, largest) or [])[1] == int(sizes.min())


def test_a_loss_that_no_choice_has_gives_nothing() -> None:
    options = tables(0)
    least = float(options.loss.min(axis=1).sum())
    assert fewest_bytes(options, least - 1e-9) is None
    assert fewest_bytes(options, least) is not None
