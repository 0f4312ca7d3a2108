"""Labels run many choices at once as they run each alone."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from random import Random

import numpy as np
import pytest

from sti.device.lanes import LaneThreads
from sti.planning.beam_search import Search
from sti.planning.labels import Labels
from tests.planning.test_beam_search import KINDS, task_of
from tests.support.brute_force import random_instance


def flat(labels: Labels) -> dict[str, list[float]]:
    """Every array of some labels, by its name."""
    found = {}
    for field in fields(labels):
        value = getattr(labels, field.name)
        parts = value if isinstance(value, tuple) else [value]
        for place, part in enumerate(parts):
            found[f"{field.name} {place}"] = part.tolist()
    return found


@pytest.mark.parametrize("threads", KINDS, ids=str)
@pytest.mark.parametrize("seed", range(10))
def test_many_choices_for_several_groups_are_those_made_one_by_one(
    seed: int, threads: LaneThreads
) -> None:
    rng = Random(seed)
    task = task_of(random_instance(rng, threads))
    search = Search(task)
    pipeline, options = search.simulated, search.options
    preload = rng.choice((0, rng.randrange(1, 300_000), task.preload_bytes))
    usable = [np.flatnonzero(np.isfinite(loss)).tolist() for loss in options.loss]
    count = len(usable)
    first = rng.randrange(1, count)
    labels, alone = pipeline.start(preload), pipeline.start(preload).take(np.zeros(5, np.int64))
    for k in range(first):  # five labels that differ
        chosen = np.array(rng.choices(usable[k], k=5))
        labels = alone = pipeline.advance(alone, k, chosen)
    groups = range(first, min(count, first + rng.randint(1, 3)))
    rows = list(product(*(rng.sample(usable[k], min(3, len(usable[k]))) for k in groups)))
    choices = np.array(rows)
    before, found = pipeline.extend(labels, groups, choices)
    assert len(found.loss) == 5 * len(rows)
    index = np.array(sorted(rng.sample(range(len(found.loss)), len(found.loss) // 2)))
    kept = pipeline.follow(before, found, index)
    alone = alone.take(index // len(rows))
    for place, k in enumerate(groups):
        alone = pipeline.advance(alone, k, choices[index % len(rows), place])
    assert flat(kept) == flat(alone)
    settled = kept.storage - kept.preload / pipeline.bytes_per_s
    assert found.settled[index] == pytest.approx(settled, rel=1e-12)
