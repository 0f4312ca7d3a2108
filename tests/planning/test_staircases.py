"""Staircases of a pack: plans like any other, the same every time, checked where they are read."""

from __future__ import annotations

import zlib
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from sti.device.lanes import PIPELINED
from sti.errors import PlanError
from sti.model.fidelity import groups_of, uniform_counts
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.check import check_plan
from sti.planning.expected_loss import loss_of_steps
from sti.planning.plan import EXACT, NARROW, PlanRequest, Target
from sti.planning.preload_placement import bare_plan, place
from sti.planning.staircase_making import MOST, make_staircases
from sti.planning.staircases import MOST_STAIRCASES, Staircases
from tests.support.brute_force import with_curves
from tests.support.synthetic import LADDER, make_manifest

SIZES = [(n, m, 0.2 * (3 - n) + 0.1 * (4 - m)) for n in (1, 2, 3) for m in (1, 2, 4)][:-1]
SMALL = with_curves(
    Random(4),
    make_manifest(
        Random(3),
        layers=3,
        slices=4,
        ladder=LADDER,
        groups=(2, 1),
        submodels=SIZES,
        orders="ranked",
    ),
    share=0.7,
)
GOLDEN = 139, 3447964820
"""How many staircases it has, and the CRC-32 of their counts; to be found again after any change of
how they are made."""
FOUND = make_staircases(SMALL)
RAW = FOUND.to_bytes(SMALL)


def read(raw: bytes, manifest: Manifest = SMALL) -> Staircases:
    return Staircases.from_bytes(raw, manifest, where="a file")


def test_every_staircase_is_a_plan_and_has_its_loss() -> None:
    for number, own in enumerate(FOUND.submodel.tolist()):
        submodel, counts = SMALL.submodels[own], FOUND.counts_of(number)
        groups = groups_of(SMALL, submodel)
        losses = []
        for variants in ((EXACT,), (EXACT, NARROW)):
            steps = place(groups, counts, 0, variants)
            request = PlanRequest(SMALL, "pack", Workload(1, 8), Target())
            plan = bare_plan(request, submodel, steps, PIPELINED, 1)
            check_plan(plan, SMALL, "pack", where="plan")
            losses.append(loss_of_steps(SMALL, submodel, groups, steps))
        assert FOUND.loss[number] == pytest.approx(losses[0], abs=1e-9)
        assert FOUND.narrow_loss[number] == pytest.approx(losses[1], abs=1e-9)


def test_they_fall_in_loss_and_are_few() -> None:
    assert np.all(np.diff(FOUND.loss) <= 0.0)
    assert 50 < len(FOUND) <= MOST
    rows = zip(FOUND.submodel.tolist(), FOUND.counts, strict=True)
    assert len({(own, row.tobytes()) for own, row in rows}) == len(FOUND)


def test_every_uniform_fidelity_is_among_them() -> None:
    kept = {(own, tuple(FOUND.counts_of(at))) for at, own in enumerate(FOUND.submodel.tolist())}
    for own, submodel in enumerate(SMALL.submodels):
        for bits in SMALL.ladder:
            groups = groups_of(SMALL, submodel)
            counts = tuple(uniform_counts(group, submodel.width, bits) for group in groups)
            assert (own, counts) in kept


def test_they_are_the_same_every_time() -> None:
    """Also on other processors, where last bits of sums differ."""
    assert make_staircases(SMALL).to_bytes(SMALL) == RAW
    assert (len(FOUND), zlib.crc32(FOUND.counts.astype("<u2").tobytes())) == GOLDEN


def test_bytes_are_read_back() -> None:
    found = read(RAW)
    for name in ("submodel", "counts", "loss", "narrow_loss"):
        one, other = getattr(found, name), getattr(FOUND, name)
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert found.to_bytes(SMALL) == RAW


def test_blocks_of_many_slices_have_counts_of_two_bytes() -> None:
    manifest = make_manifest(Random(0), layers=1, slices=300, ladder=(2, 4), attention_weights=1024)
    found = make_staircases(manifest)
    assert found.counts.max() == 300
    again = read(found.to_bytes(manifest), manifest)
    assert np.array_equal(again.counts, found.counts)


def test_every_damaged_byte_is_noticed() -> None:
    for at in [*range(40), *range(40, len(RAW), 97), len(RAW) - 1]:
        damaged = bytearray(RAW)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(PlanError, match=r"a file: .*rank the pack again"):
            read(bytes(damaged))


@pytest.mark.parametrize("length", [0, 4, 19, 20, len(RAW) // 2, len(RAW) - 1])
def test_what_is_cut_short_is_noticed(length: int) -> None:
    with pytest.raises(PlanError, match="a file"):
        read(RAW[:length])
    with pytest.raises(PlanError, match="do not fit"):
        read(RAW + bytes(1))


def test_those_of_another_pack_are_refused() -> None:
    other = make_manifest(Random(3), layers=4, slices=4, ladder=LADDER, groups=(2, 1))
    with pytest.raises(PlanError, match="do not fit a pack of 12 groups in 5 planes"):
        read(RAW, other)
    fewer = SMALL._replace(submodels=SMALL.submodels[:2])
    with pytest.raises(PlanError, match="name a submodel that the pack lacks"):
        read(RAW, fewer)


def test_another_version_is_refused() -> None:
    with pytest.raises(PlanError, match="of version 9, this release reads 1"):
        read(RAW[:5] + b"\x09" + RAW[6:])


def changed(**arrays: object) -> bytes:
    return replace(FOUND, **arrays).to_bytes(SMALL)  # type: ignore[arg-type]


def with_count(group: int, plane: int, value: int) -> bytes:
    """The bytes with another count in the first staircase of the full model."""
    counts = FOUND.counts.copy()
    counts[np.flatnonzero(FOUND.submodel == 0)[0], group, plane] = value
    return changed(counts=counts)


def not_run() -> bytes:
    """The bytes with a count for a group that a submodel does not run."""
    counts = FOUND.counts.copy()
    row = next(at for at in range(len(FOUND)) if not counts[at, :, 0].all())
    counts[row, np.flatnonzero(counts[row, :, 0] == 0)[0], 1] = 1
    return changed(counts=counts)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (with_count(0, 0, 1), "use other slices"),
        (with_count(0, 1, 3), "more shards than there are"),
        (with_count(2, 4, 4), "more of a plane than of the one below"),
        (not_run(), "groups that their submodel does not run"),
        (changed(loss=np.full(len(FOUND), np.nan)), "a loss that cannot be"),
        (changed(loss=-1.0 - FOUND.loss), "a loss that cannot be"),
        (changed(narrow_loss=FOUND.loss - FOUND.loss), "lose less with narrow"),
    ],
)
def test_what_cannot_be_is_refused_even_if_checksums_match(raw: bytes, message: str) -> None:
    with pytest.raises(PlanError, match=f"a file: .*{message}"):
        read(raw)


def test_more_than_a_run_can_price_are_refused() -> None:
    rows = np.zeros(MOST_STAIRCASES + 1, np.int64)
    many = Staircases(rows, FOUND.counts[rows], FOUND.loss[rows], FOUND.narrow_loss[rows])
    with pytest.raises(PlanError, match="do not fit"):
        read(many.to_bytes(SMALL))
