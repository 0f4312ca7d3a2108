"""Random staircases, and the gap between picking one of a pack's and searching for a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

import numpy as np

from sti.device.lanes import COMPUTE, DECODE, PIPELINED, SEQUENTIAL, shared
from sti.device.profile import DeviceProfile
from sti.errors import InfeasibleError
from sti.model.fidelity import uniform_counts
from sti.model.manifest import Manifest, SliceGroup
from sti.model.quality import Quality, interpolate
from sti.model.workload import Workload
from sti.planning.choice import Terms, choose, fastest
from sti.planning.plan import PlanRequest, Target
from sti.planning.planner import make_plan
from sti.planning.pricing import PriceList, Prices
from sti.planning.staircases import Staircases
from tests.support.synthetic import make_profile

KINDS = (SEQUENTIAL, PIPELINED, shared(2))
PACK = "0123456789abcdef"


def random_staircases(rng: Random, manifest: Manifest, count: int) -> Staircases:
    """Staircases of random submodels, some groups of them uniform."""
    shape = count, len(manifest.groups), len(manifest.ladder)
    counts = np.zeros(shape, np.uint16)
    submodel = np.array([rng.randrange(len(manifest.submodels)) for _ in range(count)])
    for row, own in zip(counts, submodel.tolist(), strict=True):
        found = manifest.submodels[own]
        for place, group in enumerate(manifest.groups):
            if group.layer in found.layers and group.first < found.width:
                row[place] = _random_counts(rng, group, found.width, manifest.ladder)
    return Staircases(submodel, counts, np.zeros(count), np.zeros(count))


def _random_counts(
    rng: Random, group: SliceGroup, width: int, ladder: tuple[int, ...]
) -> tuple[int, ...]:
    if rng.random() < 0.5:
        return uniform_counts(group, width, rng.choice(ladder))
    counts = [group.used(width)]
    for _ in ladder[1:]:
        counts.append(rng.randint(0, counts[-1]))
    return tuple(counts)


class Cell(NamedTuple):
    """One comparison: what was asked, and how much metric picking loses against searching."""

    profile: DeviceProfile
    workload: Workload
    preload_bytes: int
    latency_s: float
    lost: float
    """Metric of the planner's plan less that of the choice; negative where the choice is better."""


def cells(
    manifest: Manifest,
    staircases: Staircases,
    quality: Quality,
    profiles: Iterable[DeviceProfile],
    workloads: Iterable[Workload],
    preloads: Iterable[int],
    rooms: Iterable[float],
) -> Iterator[Cell]:
    """A comparison for each combination that the planner has a plan for.

    Args:
        quality: what losses mean; for both sides.
        rooms: latencies, from the least that is offered (0) to what everything takes (1).
    """
    manifest = manifest._replace(quality=quality)
    list_ = PriceList(manifest, staircases)
    workloads, preloads, rooms = list(workloads), list(preloads), list(rooms)
    for profile in profiles:
        spreads = {name: run.jitter for name, run in profile.runs.items()}
        for workload in workloads:
            for preload_bytes in preloads:
                prices = list_.price(profile, workload, preload_bytes)
                terms = Terms(None, {}, spreads, np.inf)
                least, whole = fastest(prices, terms), choose(prices, terms)
                assert least is not None and whole is not None
                for room in rooms:
                    latency_s = least.promised_s
                    latency_s += room * (whole.promised_s - least.promised_s)
                    target = Target(latency_s, preload_bytes)
                    request = PlanRequest(manifest, PACK, workload, target)
                    lost = _lost(prices, terms._replace(latency_s=latency_s), request, profile)
                    if lost is not None:
                        yield Cell(profile, workload, preload_bytes, latency_s, lost)


def _lost(
    prices: Prices, terms: Terms, request: PlanRequest, profile: DeviceProfile
) -> float | None:
    quality, choice = request.manifest.quality, choose(prices, terms)
    assert quality is not None and choice is not None
    try:
        plan = make_plan(request, profile)
    except InfeasibleError:
        return None
    assert plan.predicted is not None
    searched, picked = (
        interpolate(quality.losses, quality.values, loss)
        for loss in (plan.predicted.loss, choice.loss)
    )
    return searched - picked


def machines(
    rates: Iterable[float] = (1e8, 4e8, 1.2e9, 4e9),
    decodes: Iterable[float] = (0.5, 3.0),
    computes: Iterable[float] = (0.3, 1.5),
    *,
    narrow: float | None = None,
) -> Iterator[DeviceProfile]:
    """Machines with storage of so many bytes a second, and shares of a laptop's other times."""
    decodes, computes = list(decodes), list(computes)
    for rate in rates:
        laptop = make_profile(bytes_per_s=rate, jitter=1.1, kinds=KINDS, narrow=narrow)
        for decode in decodes:
            for compute in computes:
                yield laptop.slowed({DECODE: decode, COMPUTE: compute})
