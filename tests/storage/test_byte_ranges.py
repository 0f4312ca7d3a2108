"""Byte ranges: every byte that is asked for is read, few requests, and none twice."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sti.model.group_layout import group_ranges, prefixes
from sti.model.manifest import SliceGroup
from sti.storage.byte_ranges import MERGE_GAP, ByteRange, coalesce, skip, total_bytes
from tests.support.synthetic import make_manifest

RANGES = st.lists(st.builds(ByteRange, st.integers(0, 400_000), st.integers(0, 90_000)), max_size=8)


@st.composite
def groups_and_counts(draw: st.DrawFn) -> tuple[SliceGroup, tuple[int, ...]]:
    slices = draw(st.integers(1, 5))
    weights = draw(st.sampled_from((64, 4096, 65536, 262144)))
    rng = Random(draw(st.integers(0, 1000)))
    manifest = make_manifest(rng, layers=1, slices=slices, attention_weights=weights)
    counts = tuple(draw(st.integers(0, slices)) for _ in manifest.ladder)
    return manifest.groups[0], (max(1, counts[0]), *counts[1:])


def bytes_of(ranges: tuple[ByteRange, ...]) -> set[int]:
    """One point for every 64 bytes, and both ends: enough to tell ranges apart."""
    return {point for item in ranges for point in (*range(item.offset, item.end, 64), item.end - 1)}


def covered(points: set[int], ranges: tuple[ByteRange, ...]) -> bool:
    return all(any(item.offset <= point < item.end for item in ranges) for point in points)


@given(RANGES, st.sampled_from((0, 1, 4096, MERGE_GAP)))
def test_coalesced_ranges_cover_what_was_asked_for(ranges: list[ByteRange], gap: int) -> None:
    asked = tuple(item for item in ranges if item.length)
    assert covered(bytes_of(asked), coalesce(ranges, gap=gap))


@given(RANGES, st.sampled_from((0, 1, 4096, MERGE_GAP)))
def test_coalesced_ranges_rise_and_lie_further_apart_than_the_gap(
    ranges: list[ByteRange], gap: int
) -> None:
    merged = coalesce(ranges, gap=gap)
    assert all(item.length > 0 for item in merged)
    assert all(b.offset - a.end > gap for a, b in pairwise(merged))


@given(RANGES, st.sampled_from((0, 4096, MERGE_GAP)))
def test_coalescing_reads_no_more_than_the_gaps_it_closes(
    ranges: list[ByteRange], gap: int
) -> None:
    merged = coalesce(ranges, gap=gap)
    starts = {item.offset for item in ranges if item.length}
    ends = {item.end for item in ranges if item.length}
    assert {item.offset for item in merged} <= starts
    assert {item.end for item in merged} <= ends
    assert total_bytes(merged) <= total_bytes(ranges) + gap * max(0, len(ranges) - 1)


@given(RANGES)
def test_coalescing_twice_changes_nothing(ranges: list[ByteRange]) -> None:
    merged = coalesce(ranges)
    assert coalesce(merged) == merged
    assert coalesce(reversed(ranges)) == merged


@given(RANGES, st.integers(0, 800_000))
def test_skipping_leaves_the_end_of_the_bytes(ranges: list[ByteRange], skipped: int) -> None:
    whole = coalesce(ranges)
    left = skip(whole, skipped)
    assert total_bytes(left) == max(0, total_bytes(whole) - skipped)
    assert all(item.length for item in left)
    assert [item.end for item in left] == [item.end for item in whole[len(whole) - len(left) :]]
    assert [item.offset for item in left[1:]] == [
        item.offset for item in whole[len(whole) - len(left) + 1 :]
    ]


@given(RANGES, st.integers(0, 200_000), st.integers(0, 200_000))
def test_skipping_in_two_steps_is_skipping_once(
    ranges: list[ByteRange], first: int, second: int
) -> None:
    whole = coalesce(ranges)
    assert skip(skip(whole, first), second) == skip(whole, first + second)


@given(groups_and_counts())
def test_segments_lie_in_order_inside_the_group(
    case: tuple[SliceGroup, tuple[int, ...]],
) -> None:
    group, counts = case
    parts = list(prefixes(group, counts))
    assert len(parts) == 1 + len(counts)
    assert all(a.end <= b.offset for a, b in pairwise(parts))
    assert parts[-1].end <= group.length
    for plane, count, part in zip(group.planes, counts, parts[1:], strict=True):
        assert part.length == count * plane.shard_bytes


@given(groups_and_counts())
def test_the_ranges_of_a_group_cover_its_segments(case: tuple[SliceGroup, tuple[int, ...]]) -> None:
    group, counts = case
    ranges = group_ranges(group, counts)
    asked = tuple(part for part in prefixes(group, counts) if part.length)
    assert covered(bytes_of(asked), ranges)
    assert ranges[-1].end <= group.length


def test_a_group_with_everything_is_one_read() -> None:
    group = make_manifest(Random(0)).groups[0]
    everything = tuple(len(plane.order) for plane in group.planes)
    assert group_ranges(group, everything) == (ByteRange(0, group.length),)


def test_a_gap_is_read_only_as_long_as_it_costs_less_than_a_request() -> None:
    near = [ByteRange(0, 10), ByteRange(10 + MERGE_GAP, 10)]
    far = [ByteRange(0, 10), ByteRange(11 + MERGE_GAP, 10)]
    assert coalesce(near) == (ByteRange(0, 20 + MERGE_GAP),)
    assert coalesce(far) == tuple(far)
