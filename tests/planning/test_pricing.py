"""Prices are what the simulation of each staircase's plan says."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.device.lanes import PIPELINED, SEQUENTIAL, shared
from sti.errors import ProfileError
from sti.model.fidelity import groups_of
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.cost_model import run_costs
from sti.planning.lane_threads import measured_choices
from sti.planning.prediction import simulate_run
from sti.planning.preload_placement import place
from sti.planning.pricing import PriceList
from sti.planning.variants import variants_of
from tests.support.staircases import random_staircases
from tests.support.synthetic import LADDER, make_manifest, make_profile

CLOSE = 1e-9
"""Sums in another order; nothing is approximated."""


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    slices, layers = draw(st.sampled_from((1, 3, 4, 6))), draw(st.sampled_from((1, 2, 4)))
    groups = draw(st.integers(1, min(3, slices))), draw(st.integers(1, min(4, slices)))
    sizes = [(n, m, 1.0) for n in range(1, layers + 1) for m in range(1, slices + 1)][:-1]
    return make_manifest(
        Random(draw(st.integers(0, 10_000))),
        layers=layers,
        slices=slices,
        ladder=draw(st.sampled_from(((2, 4), (2, 3, 6), LADDER))),
        attention_weights=draw(st.sampled_from((1024, 65536, 262144))),
        groups=groups,
        submodels=draw(st.lists(st.sampled_from(sizes), unique=True) if sizes else st.just([])),
        orders=draw(st.sampled_from(("random", "ranked"))),
    )


@settings(max_examples=60)
@given(
    manifests(),
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.sampled_from((None, 0.6)),
    st.sampled_from((0.0, 0.0, 0.1, 0.5, 2.0)),
    st.sampled_from((1, 3)),
)
def test_prices_are_those_of_the_simulation(
    manifest: Manifest,
    seed: int,
    threads: int,
    narrow: float | None,
    preload: float,
    read_ahead: int,
) -> None:
    rng = Random(seed)
    profile = make_profile(
        rng,
        ladder=manifest.ladder,
        kinds=(SEQUENTIAL, PIPELINED, shared(threads)),
        contention=rng.uniform(1.0, 1.4),
        narrow=narrow,
    )
    workloads = [Workload(rng.choice((1, 4)), rng.choice((8, 64, 128))) for _ in range(3)]
    which = rng.randrange(3)
    workload = workloads[which]
    preload_bytes = round(preload * sum(group.length for group in manifest.groups))
    staircases = random_staircases(rng, manifest, 12)
    found = PriceList(manifest, staircases, read_ahead=read_ahead)
    prices = found.price_all(profile, workloads, preload_bytes)[which]
    assert prices.threads == measured_choices(profile)
    for number, own in enumerate(staircases.submodel.tolist()):
        submodel = manifest.submodels[own]
        groups, counts = groups_of(manifest, submodel), staircases.counts_of(number)
        steps = place(groups, counts, preload_bytes, variants_of(manifest, profile))
        for row, kind in enumerate(prices.threads):
            costs = run_costs(manifest, profile, workload, submodel.width, threads=kind)
            run = simulate_run(costs, groups, steps, read_ahead=read_ahead)
            assert prices.total_s[row, number] == pytest.approx(run.total_s, rel=CLOSE)
        held = sum(step.preload_bytes for step in steps)
        assert prices.read_bytes[number] == run.read_bytes + held


def test_the_loss_is_that_of_the_products_that_the_machine_computes() -> None:
    manifest = make_manifest(Random(0), ladder=LADDER)
    found = random_staircases(Random(1), manifest, 4)
    found.narrow_loss[:] = 7.0
    for narrow, loss in ((None, 0.0), (0.6, 7.0)):
        prices = PriceList(manifest, found).price(make_profile(narrow=narrow), Workload(1, 64), 0)
        assert np.all(prices.loss == loss)


def test_a_profile_that_does_not_fit_is_refused() -> None:
    manifest = make_manifest(Random(0), ladder=LADDER)
    prices = PriceList(manifest, random_staircases(Random(1), manifest, 4))
    with pytest.raises(ProfileError, match="has no decode time for 3 bits"):
        prices.price(make_profile(ladder=(2, 4, 6, 8)), Workload(1, 64), 0)
