"""What a step needs at run time: every piece lies where the group's layout says."""

from __future__ import annotations

from random import Random
from zlib import crc32

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.codec.pieces import MOST_PLANES, SHARD
from sti.model.fidelity import fidelities
from sti.model.group_layout import group_ranges, prefixes
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.plan import PlanRequest, PlanStep
from sti.planning.step_jobs import StepJob, prepare, prepare_step
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import SECTOR, total_bytes
from tests.support.synthetic import LADDER, make_manifest


def with_bytes(group: SliceGroup, rng: Random) -> tuple[SliceGroup, bytes]:
    """The group with checksums of bytes that it is given."""
    data = rng.randbytes(group.length)
    lists, start = [], 0
    for size in group.outlier_bytes:
        lists.append(crc32(data[start : start + size]))
        start += size
    planes = []
    for plane in group.planes:
        checksums = [0] * group.slices
        for index in plane.order:
            checksums[index] = crc32(data[start : start + plane.shard_bytes])
            start += plane.shard_bytes
        planes.append(plane._replace(checksums=tuple(checksums)))
    assert start == group.length
    return group._replace(outlier_checksums=tuple(lists), planes=tuple(planes)), data


@st.composite
def cases(draw: st.DrawFn) -> tuple[SliceGroup, bytes, PlanStep, int, int]:
    """A group, its bytes, a step, where the group starts in the file, the width of the plan."""
    rng = Random(draw(st.integers(0, 10_000)))
    weights = draw(st.sampled_from((512, 65536, 262144)))  # with gaps that are merged, or not
    manifest = make_manifest(
        rng, layers=1, slices=5, ladder=LADDER, attention_weights=weights, groups=(3, 1)
    )
    width = draw(st.integers(1, 5))
    used = [group for group in manifest.block(0, "attention") if group.used(width)]
    group, data = with_bytes(draw(st.sampled_from(used)), rng)
    above = draw(st.lists(st.integers(0, group.slices), min_size=4, max_size=4))
    counts = (group.used(width), *sorted(above, reverse=True))
    held = draw(st.integers(0, total_bytes(group_ranges(group, counts))))
    step = PlanStep(0, "attention", group.number, counts, held)
    return group, data, step, draw(st.integers(0, 100)) * SECTOR, width


def file_of(data: bytes, offset: int) -> bytes:
    """The group's bytes at their place in a file, with something else around them."""
    after = -len(data) % SECTOR + SECTOR
    return b"\xaa" * offset + data + b"\xbb" * after


@settings(max_examples=60)
@given(cases())
def test_pieces_are_the_shards_in_use_up_to_their_fidelity_wherever_they_lie(
    case: tuple[SliceGroup, bytes, PlanStep, int, int],
) -> None:
    group, data, step, offset, width = case
    job = prepare_step(step, group, offset, width=width)
    file = file_of(data, offset)
    packed = b"".join(file[item.offset : item.end] for item in job.ranges)
    slot = b"".join(file[item.offset : item.end] for item in job.covers)
    assert len(slot) == job.slot_bytes
    assert all(not (item.offset % SECTOR or item.length % SECTOR) for item in job.covers)
    assert job.shards.dtype == SHARD and job.shards.flags.c_contiguous
    assert job.shards["row"].tolist() == list(range(step.counts[0]))
    bits = fidelities(group, step.counts)
    homes = list(prefixes(group, step.counts))
    for row, shard in enumerate(job.shards):
        assert (0, *LADDER)[shard["planes"]] == bits[row]
        sizes = [group.outlier_bytes[row], *(plane.shard_bytes for plane in group.planes)]
        sums = [group.outlier_checksums[row], *(plane.checksums[row] for plane in group.planes)]
        starts = [homes[0].offset + sum(group.outlier_bytes[:row])]
        for home, plane in zip(homes[1:], group.planes, strict=True):
            starts.append(home.offset + plane.order.index(row) * plane.shard_bytes)
        for level, piece in enumerate(shard["pieces"][: 1 + shard["planes"]]):
            part, length = int(piece["part"]), int(piece["length"])
            assert (length, piece["checksum"], piece["zero"]) == (sizes[level], sums[level], 0)
            for places, buffer in ((job.packed_starts, packed), (job.slot_starts, slot)):
                at = int(places[part]) + int(piece["start"]) if length else 0
                expected = data[starts[level] : starts[level] + length]
                assert buffer[at : at + length] == expected
                assert crc32(expected) == piece["checksum"]
        rest = shard["pieces"][1 + shard["planes"] :]
        assert not rest.tobytes().strip(b"\0")


@settings(max_examples=40)
@given(cases())
def test_a_step_reads_the_groups_ranges_at_its_place_in_the_file(
    case: tuple[SliceGroup, bytes, PlanStep, int, int],
) -> None:
    group, _, step, offset, width = case
    job = prepare_step(step, group, offset, width=width)
    found = [(item.offset - offset, item.length) for item in job.ranges]
    assert found == list(group_ranges(group, step.counts))
    assert (job.name, job.preload_bytes) == (step.name, step.preload_bytes)
    assert job.used == group.used(width) == step.counts[0]
    assert job.connects == (group.first + group.slices >= width)
    assert len(job.slot_starts) == len(job.packed_starts) == len(job.ranges)


@settings(max_examples=40)
@given(cases(), st.integers(1, MOST_PLANES))
def test_limited_shards_have_no_more_planes_and_are_copies(
    case: tuple[SliceGroup, bytes, PlanStep, int, int], planes: int
) -> None:
    group, _, step, offset, width = case
    job = prepare_step(step, group, offset, width=width)
    before = job.shards.copy()
    found = job.limited(planes)
    assert found["planes"].tolist() == [min(planes, each) for each in before["planes"].tolist()]
    assert np.array_equal(found["row"], before["row"])
    assert np.array_equal(found["pieces"], before["pieces"])
    found["planes"] = 0
    assert np.array_equal(job.shards, before)


@settings(max_examples=40)
@given(cases(), st.integers(1, len(LADDER)))
def test_limited_shards_are_those_of_the_plan_without_the_planes_above(
    case: tuple[SliceGroup, bytes, PlanStep, int, int], planes: int
) -> None:
    """So a run that left planes out gives the answer of a plan that never had them."""
    group, _, step, offset, width = case
    job = prepare_step(step, group, offset, width=width)
    counts = tuple(count if level < planes else 0 for level, count in enumerate(step.counts))
    lower = prepare_step(step._replace(counts=counts), group, offset, width=width)
    assert job.limited(planes)["planes"].tolist() == lower.shards["planes"].tolist()
    for one, other in zip(job.limited(planes), lower.shards, strict=True):
        count = 1 + one["planes"]
        for name in ("length", "checksum"):
            assert one["pieces"][name][:count].tolist() == other["pieces"][name][:count].tolist()


def offset_of(manifest: Manifest) -> dict[tuple[int, str, int], int]:
    """Somewhere for every group."""
    return {
        (group.layer, group.kind, group.number): place * (1 << 22) + SECTOR
        for place, group in enumerate(manifest.groups)
    }


def test_a_plan_has_a_job_a_step_and_connects_once_a_block_in_use() -> None:
    manifest = make_manifest(
        Random(1), slices=5, ladder=LADDER, groups=(3, 2), submodels=[(2, 3, 1.0)]
    )
    places = offset_of(manifest)

    def jobs(width: int) -> tuple[StepJob, ...]:
        plan = uniform_plan(PlanRequest(manifest, "pack", Workload(1, 8)), bits=4, width=width)
        found = prepare(plan, manifest, lambda g: places[g.layer, g.kind, g.number])
        assert [job.name for job in found] == [step.name for step in plan.steps]
        for job in found:
            home = places[job.group.layer, job.group.kind, job.group.number]
            assert home <= job.ranges[0].offset < home + job.group.length
        return found

    assert [job.connects for job in jobs(5)] == [False, False, True, False, True] * 2
    narrow = jobs(3)
    assert [job.connects for job in narrow] == [False, True, False, True] * 2
    assert [job.used for job in narrow] == [1, 2, 2, 1] * 2


@given(cases(), st.integers(1, 5))
def test_fewer_planes_are_the_job_of_a_plan_with_fewer_that_lies_where_all_lie(
    case: tuple[SliceGroup, bytes, PlanStep, int, int], planes: int
) -> None:
    group, _, step, offset, width = case
    whole = prepare_step(step, group, offset, width=width)
    counts = tuple(count if place < planes else 0 for place, count in enumerate(step.counts))
    held = min(step.preload_bytes, total_bytes(group_ranges(group, counts)))
    less = step._replace(counts=counts, preload_bytes=held)
    expected, found = prepare_step(less, group, offset, width=width), whole.lowered(planes)
    for name in StepJob._fields:
        if name.endswith("starts"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        elif name != "shards":
            assert getattr(found, name) == getattr(expected, name)
    np.testing.assert_array_equal(found.shards["row"], expected.shards["row"])
    np.testing.assert_array_equal(found.shards["planes"], expected.shards["planes"])
    for mine, theirs in zip(found.shards, expected.shards, strict=True):
        read = int(mine["planes"]) + 1
        np.testing.assert_array_equal(mine["pieces"][:read], theirs["pieces"][:read])
    assert (found.slot_starts == whole.slot_starts[: len(found.ranges)]).all()
    assert found.slot_bytes <= whole.slot_bytes
