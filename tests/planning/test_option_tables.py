"""The tables of staircases agree with the byte ranges and fidelities of the run time."""

from __future__ import annotations

from math import comb
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.model.fidelity import fidelities, groups_of, loss_of, uniform_counts
from sti.model.group_layout import group_ranges
from sti.model.manifest import SliceGroup, Submodel
from sti.model.workload import Workload
from sti.planning.cost_model import RunCosts, run_costs
from sti.planning.option_tables import MOST_OPTIONS, OptionTables, staircases, tabulate
from sti.planning.timeline import rounds_s
from sti.storage.byte_ranges import skip, total_bytes
from tests.support.synthetic import LADDER, make_manifest, make_profile

Case = tuple[list[SliceGroup], int, RunCosts, OptionTables]
"""The groups in use at a width, and their tables."""


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
    threads = draw(st.integers(1, 3))
    costs = run_costs(manifest, make_profile(), Workload(1, 8), width, threads=threads)
    used = groups_of(manifest, Submodel(1, width, (0,), 0.0))
    return used, width, costs, tabulate(used, width, costs)


@settings(max_examples=40)
@given(cases())
def test_tables_say_what_the_run_time_will_read_and_decode(case: Case) -> None:
    groups, width, costs, options = case
    submodel = Submodel(1, width, (0,), 0.0)
    for k, group in enumerate(groups):
        for option in range(len(options.used[k])):
            counts = options.counts(k, option)
            ranges = group_ranges(group, counts)
            assert options.read_bytes[k, option] == total_bytes(ranges)
            assert options.requests[k, option] == len(ranges)
            bits = fidelities(group, counts)
            decode_s = rounds_s(costs.decode_s(group, bits), counts[0], costs.threads)
            assert options.decode_s[k, option] == pytest.approx(decode_s)
            if np.isfinite(options.loss[k, option]):
                loss = loss_of(submodel, [group], [counts])
                assert options.loss[k, option] == pytest.approx(loss)


@settings(max_examples=60)
@given(cases(), st.floats(0.0, 1.0))
def test_breaks_say_how_many_requests_a_preload_leaves(case: Case, share: float) -> None:
    groups, _, _, options = case
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
    groups, width, costs, options = case
    for k, group in enumerate(groups):
        count, used, planes = len(options.used[k]), group.used(width), len(group.planes)
        assert count == comb(used + planes - 1, planes - 1)
        assert (options.used[k][:, 0] == used).all()
        assert np.isinf(options.loss[k, count:]).all()
        alone = tabulate([group], width, costs)
        assert alone.loss.shape == (1, count)
        for name in ("loss", "decode_s", "read_bytes", "requests"):
            found, same = getattr(options, name)[k], getattr(alone, name)[0]
            assert found[:count].tolist() == same.tolist()
            assert name == "loss" or (found[count:] == found[0]).all()
        for option in range(count):
            assert options.counts(k, option) == alone.counts(0, option)


@settings(max_examples=40)
@given(cases())
def test_uniform_options_bring_all_slices_in_use_to_one_fidelity(case: Case) -> None:
    groups, width, _, options = case
    assert options.uniform.shape == (len(groups[0].planes), len(groups))
    for k, group in enumerate(groups):
        for plane, option in zip(group.planes, options.uniform[:, k].tolist(), strict=True):
            assert options.counts(k, option) == uniform_counts(group, width, plane.bits)
            assert np.isfinite(options.loss[k, option])


@settings(max_examples=60)
@given(cases())
def test_only_staircases_that_read_a_shard_for_nothing_are_left_out(case: Case) -> None:
    groups, _, _, options = case
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
