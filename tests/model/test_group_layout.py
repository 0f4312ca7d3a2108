"""The bytes of a slice group that a plan reads: its prefixes, coalesced."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sti.model.group_layout import group_ranges, prefixes
from sti.model.manifest import SliceGroup
from sti.storage.byte_ranges import coalesce
from tests.support.synthetic import LADDER, make_manifest


@st.composite
def reads(draw: st.DrawFn) -> tuple[SliceGroup, tuple[int, ...]]:
    """A group, and counts of its planes: any, falling or not."""
    weights = draw(st.sampled_from((512, 65536, 262144)))
    manifest = make_manifest(
        Random(draw(st.integers(0, 10_000))),
        layers=1,
        slices=5,
        ladder=LADDER,
        attention_weights=weights,
        ffn_weights=weights,
        groups=(3, 2),
    )
    group = draw(st.sampled_from(manifest.groups))
    return group, tuple(draw(st.integers(0, group.slices)) for _ in LADDER)


@given(reads())
def test_segments_are_prefixes_of_the_outlier_lists_and_of_each_plane(
    read: tuple[SliceGroup, tuple[int, ...]],
) -> None:
    group, counts = read
    lists, *planes = prefixes(group, counts)
    assert lists == (0, sum(group.outlier_bytes[: counts[0]]))
    start = sum(group.outlier_bytes)
    for found, plane, count in zip(planes, group.planes, counts, strict=True):
        assert found == (start, count * plane.shard_bytes)
        start += group.slices * plane.shard_bytes
    assert start == group.length


@given(reads())
def test_ranges_are_the_segments_coalesced(read: tuple[SliceGroup, tuple[int, ...]]) -> None:
    assert group_ranges(*read) == coalesce(prefixes(*read))
