"""The tables of staircases agree with the byte ranges and fidelities of the run time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import comb
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.device.lanes import PIPELINED, SEQUENTIAL, shared
from sti.model.fidelity import fidelities, groups_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest, SliceGroup, Submodel
from sti.model.workload import Workload
from sti.planning.cost_model import RunCosts, run_costs
from sti.planning.expected_loss import loss_of_steps
from sti.planning.option_tables import MOST_OPTIONS, OptionTables, staircases, tabulate
from sti.planning.preload_placement import place
from sti.planning.variants import rounding_loss
from sti.storage.byte_ranges import skip, total_bytes
from tests.support.synthetic import LADDER, make_manifest, make_profile


class Case(NamedTuple):
    """The groups in use at a width, and their tables."""

    manifest: Manifest
    groups: list[SliceGroup]
    width: int
    costs: RunCosts
    rounding: Mapping[int, float]
    options: OptionTables


@st.composite
def cases(draw: st.DrawFn) -> Case:
    slices = draw(st.integers(1, 5))
    width = draw(st.integers(1, slices))
    groups = draw(st.integers(1, min(3, slices))), draw(st.integers(1, min(3, slices)))
    ladder = draw(st.sampled_from(((2,), (2, 4), (2, 4, 8), (2, 3, 4, 8))))
    weights = draw(st.sampled_from((1024, 65536, 262144)))
    manifest = make_manifest(
        Random(draw(st.integers(0, 10_000))),
        layers=1,
        slices=slices,
        ladder=ladder,
        attention_weights=weights,
        groups=groups,
    )
    threads = draw(st.sampled_from((SEQUENTIAL, PIPELINED, shared(2), shared(3))))
    profile = make_profile(kinds=(threads,), narrow=draw(st.sampled_from((None, 0.6))))
    costs = run_costs(manifest, profile, Workload(1, 64), width, threads=threads)
    used = groups_of(manifest, Submodel(1, width, (0,), 0.0))
    rounding = rounding_loss(manifest)
    return Case(manifest, used, width, costs, rounding, tabulate(used, width, costs, rounding))


@settings(max_examples=40)
@given(cases())
def test_tables_say_what_the_run_time_will_read_and_decode(case: Case) -> None:
    manifest, groups, width, costs, _, options = case
    submodel = Submodel(1, width, (0,), 0.0)
    for k, group in enumerate(groups):
        for option in range(len(options.used[k])):
            counts = options.counts(k, option)
            ranges = group_ranges(group, counts)
            assert options.read_bytes[k, option] == total_bytes(ranges)
            assert options.requests[k, option] == len(ranges)
            bits = fidelities(group, counts)
            decode_s = costs.decode_s(group, Counter(filter(None, bits)))
            assert options.decode_s[k, option] == pytest.approx(decode_s)
            if np.isfinite(options.loss[k, option]):
                steps = place([group], [counts], 0, costs.variants)
                compute_s = costs.compute_s(group, steps[0].variant)
                assert options.compute_s[k, option] == pytest.approx(compute_s)
                loss = loss_of_steps(manifest, submodel, [group], steps)
                assert options.loss[k, option] == pytest.approx(loss)


@settings(max_examples=60)
@given(cases(), st.floats(0.0, 1.0))
def test_breaks_say_how_many_requests_a_preload_leaves(case: Case, share: float) -> None:
    groups, options = case.groups, case.options
    for k, group in enumerate(groups):
        for option in range(len(options.used[k])):
            ranges = group_ranges(group, options.counts(k, option))
            held = int(share * total_bytes(ranges))
            skipped = sum(int(starts[option]) <= held for starts in options.breaks[k])
            if held < total_bytes(ranges):
                assert options.requests[k, option] - skipped == len(skip(ranges, held))


@settings(max_examples=40)
@given(cases())
def test_rows_are_filled_up_with_options_that_are_never_chosen(case: Case) -> None:
    _, groups, width, costs, rounding, options = case
    for k, group in enumerate(groups):
        count, used, planes = len(options.used[k]), group.used(width), len(group.planes)
        assert count == comb(used + planes - 1, planes - 1)
        assert (options.used[k][:, 0] == used).all()
        assert np.isinf(options.loss[k, count:]).all()
        alone = tabulate([group], width, costs, rounding)
        assert alone.loss.shape == (1, count)
        for name in ("loss", "decode_s", "compute_s", "read_bytes", "requests"):
            found, same = getattr(options, name)[k], getattr(alone, name)[0]
            assert found[:count].tolist() == same.tolist()
            assert name == "loss" or (found[count:] == found[0]).all()
        for option in range(count):
            assert options.counts(k, option) == alone.counts(0, option)


@settings(max_examples=40)
@given(cases())
def test_uniform_options_bring_all_slices_in_use_to_one_fidelity(case: Case) -> None:
    groups, width, options = case.groups, case.width, case.options
    assert options.uniform.shape == (len(groups[0].planes), len(groups))
    for k, group in enumerate(groups):
        for plane, option in zip(group.planes, options.uniform[:, k].tolist(), strict=True):
            assert options.counts(k, option) == uniform_counts(group, width, plane.bits)
            assert np.isfinite(options.loss[k, option])


@settings(max_examples=60)
@given(cases())
def test_only_staircases_that_read_a_shard_for_nothing_are_left_out(case: Case) -> None:
    groups, options = case.groups, case.options
    for k, group in enumerate(groups):
        reached: dict[tuple[int, ...], list[tuple[bool, tuple[int, ...]]]] = {}
        for option in range(len(options.used[k])):
            counts = options.counts(k, option)
            good = bool(np.isfinite(options.loss[k, option]))
            reached.setdefault(fidelities(group, counts), []).append((good, counts))
        for same in reached.values():
            (kept,) = [counts for good, counts in same if good]
            for _, counts in same:
                assert all(few <= many for few, many in zip(kept, counts, strict=True))


@pytest.mark.parametrize(("width", "planes"), [(1, 1), (3, 3), (12, 5), (16, 5), (64, 6)])
def test_staircases_fall_and_go_from_everything_to_the_first_plane(width: int, planes: int) -> None:
    used = np.full((1, 1), width)
    for parent, reach in staircases(width, planes):
        used = np.column_stack((used[parent], reach))
    assert len(used) <= MOST_OPTIONS
    assert (np.diff(used, axis=1) <= 0).all()
    assert len(np.unique(used, axis=0)) == len(used)
    assert set(used[0]) == {width}
    assert used[-1].tolist() == [width, *[0] * (planes - 1)]


def test_all_staircases_of_twelve_slices_are_looked_at() -> None:
    assert len(staircases(12, len(LADDER))[-1][0]) == 1820
