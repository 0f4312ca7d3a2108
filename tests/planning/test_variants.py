"""Variants: which steps are narrow, and what that costs, against sampled weights."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from sti.codec.codebook import Codebook
from sti.codec.halves import bell_of, halves_of
from sti.model.fidelity import fidelities, groups_of
from sti.model.workload import Workload
from sti.planning.expected_loss import loss_of_steps
from sti.planning.plan import EXACT, NARROW, VARIANTS, PlanRequest
from sti.planning.uniform import uniform_plan
from sti.planning.variants import (
    NARROW_MOST_BITS,
    graph_name,
    narrow_missing,
    rounding_loss,
    variant_of,
    variants_of,
)
from tests.support.synthetic import LADDER, make_manifest, make_profile

MANIFEST = make_manifest(Random(3), slices=4, ladder=LADDER, groups=(1, 2))


def bell_manifest(deviation: float) -> tuple[Codebook, dict[str, object]]:
    """The most accurate codebook of normally distributed weights, and its JSON."""
    sample = np.sort(np.random.default_rng(1).normal(0.0, deviation, 50_000))
    values = {}
    for bits in (2, 3, 4, 8):
        means = [part.mean() for part in np.array_split(sample, 1 << bits)]
        for _ in range(60):
            cuts = np.searchsorted(sample, 0.5 * (np.array(means[1:]) + means[:-1]))
            means = [part.mean() for part in np.split(sample, cuts)]
        values[bits] = np.clip(np.rint(means), -128, 127).astype(np.int8)
    book = Codebook((2, 3, 4, 8), values)
    return book, book.to_json()


@pytest.mark.parametrize(
    ("bits", "variants", "expected"),
    [
        ((2, 4), VARIANTS, NARROW),
        ((4, 4, 4), VARIANTS, NARROW),
        ((2, 6), VARIANTS, EXACT),
        ((8,), VARIANTS, EXACT),
        ((2,), (EXACT,), EXACT),
    ],
)
def test_steps_of_few_bits_are_narrow_where_that_is_worth_it(
    bits: tuple[int, ...], variants: tuple[str, ...], expected: str
) -> None:
    assert variant_of(bits, variants) == expected


def test_a_machine_has_the_variants_that_it_was_measured_with() -> None:
    assert variants_of(MANIFEST, make_profile()) == (EXACT,)
    assert variants_of(MANIFEST, make_profile(narrow=0.6)) == (EXACT, NARROW)
    assert (graph_name("ffn", EXACT), graph_name("ffn", NARROW)) == ("ffn", "ffn.narrow")


@pytest.mark.parametrize("deviation", [17.0, 30.0])
def test_rounding_loses_the_share_of_the_error_that_it_adds(deviation: float) -> None:
    """Against weights drawn at random, and the deviation that they were drawn with."""
    book, body = bell_manifest(deviation)
    found = rounding_loss(MANIFEST._replace(ladder=book.ladder, codebook=body))
    assert set(found) == {bits for bits in book.ladder if bits <= NARROW_MOST_BITS}
    weights, bell = np.random.default_rng(2).normal(0.0, deviation, 400_000), bell_of(book)
    for bits, share in found.items():
        values = np.sort(book.values[bits].astype(np.float64))
        nearest = values[np.searchsorted((values[1:] + values[:-1]) / 2, weights)]
        halves = dict(
            zip(book.values[bits].tolist(), halves_of(book.values[bits], bell), strict=True)
        )
        rounded_to = 2.0 * np.array([halves[value] for value in values])
        narrow = rounded_to[np.searchsorted((values[1:] + values[:-1]) / 2, weights)]
        exact, rounded = (np.mean((weights - w) ** 2) for w in (nearest, narrow))
        assert share == pytest.approx(rounded / exact - 1.0, abs=0.03)
    assert found[4] > found[2]


def test_a_narrow_step_loses_that_share_of_what_the_planes_above_would_save() -> None:
    request = PlanRequest(MANIFEST, "pack", Workload(1, 16))
    full = MANIFEST.submodels[0]
    groups, shares = groups_of(MANIFEST, full), rounding_loss(MANIFEST)
    for bits in LADDER:
        exact, narrow = (
            uniform_plan(request, bits=bits, variants=variants).steps
            for variants in ((EXACT,), VARIANTS)
        )
        expected = 0.0
        if bits <= NARROW_MOST_BITS:
            assert {step.variant for step in narrow} == {NARROW}
            expected = shares[bits] * sum(
                gain
                for group in groups
                for plane in group.planes
                if plane.bits > bits
                for gain in plane.gains
            )
        assert narrow_missing(MANIFEST, groups, narrow) == pytest.approx(expected)
        less, more = (loss_of_steps(MANIFEST, full, groups, steps) for steps in (exact, narrow))
        assert more == pytest.approx(less + expected)


def test_slices_that_are_not_in_use_lose_nothing() -> None:
    manifest = make_manifest(Random(3), slices=4, ladder=LADDER, submodels=[(2, 3, 0.0)])
    plan = uniform_plan(
        PlanRequest(manifest, "pack", Workload(1, 16)), bits=4, width=3, variants=VARIANTS
    )
    shares, expected = rounding_loss(manifest), 0.0
    for step, group in zip(plan.steps, manifest.groups, strict=True):
        assert fidelities(group, step.counts) == (4, 4, 4, 0)
        expected += sum(shares[4] * sum(p.gains[:3]) for p in group.planes if p.bits > 4)
    assert narrow_missing(manifest, manifest.groups, plan.steps) == pytest.approx(expected)
