"""The shape of a run: which step waits for which, and what the steps cost."""

from __future__ import annotations

from random import Random

import pytest

from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.device.profile import ComputeProfile
from sti.errors import ProfileError
from sti.model.fidelity import WORKING_BUFFERS
from sti.model.workload import Workload
from sti.planning.cost_model import (
    FIRST_STEPS,
    STEPS_PER_GROUP,
    RunCosts,
    StepWork,
    deadline_s,
    run_costs,
    run_steps,
)
from sti.planning.plan import Target
from sti.planning.span import Span
from sti.planning.timeline import simulate
from tests.support.synthetic import LADDER, make_manifest, make_profile

MANIFEST = make_manifest(Random(0), layers=3, ladder=LADDER)
GROUPS = MANIFEST.groups
ATTENTION, FFN = GROUPS[:2]


def costs(threads: int = 1, *, contention: float = 1.0) -> RunCosts:
    profile = make_profile(contention=contention)
    return run_costs(MANIFEST, profile, Workload(2, 64), 3, threads=threads)


def spans(storage_s: float, decode_s: float, *, read_ahead: int) -> list[dict[str, Span]]:
    """The spans of six equal groups on the three lanes."""
    works = [StepWork(group, storage_s, decode_s, 3) for group in GROUPS]
    found = costs()
    steps = run_steps(found, works, read_ahead=read_ahead)
    schedule = simulate(found.lanes, steps).spans
    lanes = (STORAGE, DECODE, COMPUTE)
    return [
        dict(zip(lanes, schedule[first : first + STEPS_PER_GROUP], strict=True))
        for first in range(FIRST_STEPS, len(steps) - 1, STEPS_PER_GROUP)
    ]


def test_a_group_is_read_then_decoded_then_computed() -> None:
    for group in spans(2e-3, 1e-3, read_ahead=2):
        assert group[STORAGE].end_s <= group[DECODE].start_s
        assert group[DECODE].end_s <= group[COMPUTE].start_s


def test_token_rows_come_before_groups_and_before_the_embedding() -> None:
    found = costs()
    schedule = simulate(found.lanes, run_steps(found, [StepWork(FFN, 1.0, 1.0, 3)], read_ahead=1))
    text, rows, embed, storage = schedule.spans[:4]
    assert text == Span(0.0, found.tokenize_s, "tokenize")
    assert rows == Span(text.end_s, text.end_s + found.rows_s, "embeddings")
    assert embed.start_s == storage.start_s == rows.end_s


@pytest.mark.parametrize("read_ahead", [1, 2, 4])
def test_reading_stays_within_the_ring(read_ahead: int) -> None:
    groups = spans(1e-6, 5e-3, read_ahead=read_ahead)
    for index, group in enumerate(groups):
        before = index - 1 - read_ahead
        if before >= 0:
            assert group[STORAGE].start_s == pytest.approx(groups[before][DECODE].end_s)
        else:
            assert group[STORAGE].end_s < groups[0][DECODE].end_s


def test_groups_that_read_nothing_take_no_slot() -> None:
    held = [StepWork(ATTENTION, 0.0, 5e-3, 3), StepWork(FFN, 0.0, 5e-3, 3)]
    read = [StepWork(ATTENTION, 1e-6, 5e-3, 3), StepWork(FFN, 1e-6, 5e-3, 3)]
    found = costs()
    schedule = simulate(found.lanes, run_steps(found, [*held, *read], read_ahead=1)).spans
    last_read, first_decode = schedule[FIRST_STEPS + 9], schedule[FIRST_STEPS + 1]
    assert last_read.end_s < first_decode.end_s


def test_decode_waits_for_a_working_buffer_of_its_kind() -> None:
    groups = spans(1e-6, 1e-6, read_ahead=5)
    for index, group in enumerate(groups):
        taken_over = index - 2 * WORKING_BUFFERS  # kinds alternate
        freed_s = groups[taken_over][COMPUTE].end_s if taken_over >= 0 else 0.0
        ready_s = max(group[STORAGE].end_s, groups[index - 1][DECODE].end_s if index else 0.0)
        assert group[DECODE].start_s == pytest.approx(max(freed_s, ready_s))


def test_decode_threads_share_the_shards_of_a_group_in_rounds() -> None:
    work = StepWork(FFN, 0.0, 3e-3, shards=3)
    for threads, rounds in ((1, 3), (2, 2), (3, 1), (8, 1)):
        found = costs(threads)
        schedule = simulate(found.lanes, run_steps(found, [work], read_ahead=1))
        span = schedule.spans[FIRST_STEPS + 1]
        assert span.end_s - span.start_s == pytest.approx(rounds * 1e-3)


def test_contention_slows_compute_while_there_is_something_left_to_decode() -> None:
    alone, beside = costs(), costs(contention=1.5)
    assert beside.embed_s == pytest.approx(1.5 * alone.embed_s)
    slow, quick = beside.compute_s(GROUPS), alone.compute_s(GROUPS)
    assert slow[:-1] == pytest.approx([1.5 * each for each in quick[:-1]])
    assert slow[-1] == quick[-1]
    assert beside.head_s == alone.head_s


@pytest.mark.parametrize(
    ("width", "used"), [(5, (1, 2, 2)), (4, (1, 2, 1)), (3, (1, 2)), (1, (1,))]
)
def test_groups_compute_what_is_in_use_of_them_and_only_the_last_connects(
    width: int, used: tuple[int, ...]
) -> None:
    manifest = make_manifest(Random(0), layers=1, slices=5, ladder=LADDER, groups=(3, 1))
    profile, workload = make_profile(contention=1.0), Workload(2, 64)
    found = run_costs(manifest, profile, workload, width, threads=1)
    attention = [group for group in manifest.block(0, "attention") if group.used(width)]
    assert tuple(group.used(width) for group in attention) == used
    connect_s = profile.compute_s("connect", workload, width)
    expected = [profile.compute_s("attention", workload, each) for each in used]
    expected[-1] += connect_s
    assert found.compute_s(attention) == pytest.approx(expected)
    (whole,) = found.compute_s(manifest.block(0, "ffn"))
    assert whole == pytest.approx(profile.compute_s("ffn", workload, width) + connect_s)


def test_the_groups_of_a_kind_share_its_working_buffers() -> None:
    """The third group of a block waits until the first one is computed."""
    manifest = make_manifest(Random(0), layers=1, slices=3, ladder=LADDER, groups=(3, 1))
    works = [StepWork(group, 0.0, 1e-6, 1) for group in manifest.block(0, "attention")]
    found = costs()
    schedule = simulate(found.lanes, run_steps(found, works, read_ahead=1)).spans
    first, _, third = (FIRST_STEPS + STEPS_PER_GROUP * place for place in range(3))
    assert schedule[third + 1].start_s == pytest.approx(schedule[first + 2].end_s)


def test_decoding_costs_shards_and_weights_of_what_is_in_use() -> None:
    found, group = costs(), GROUPS[0]
    expected = 2 * found.shard_s + group.shard_weights * (found.weight_s[4] + found.weight_s[2])
    assert found.decode_s(group, (4, 0, 2)) == pytest.approx(expected)


def test_token_rows_are_no_more_than_the_vocabulary() -> None:
    profile = make_profile()
    few, many = (
        run_costs(MANIFEST, profile, Workload(batch, 512), 3, threads=1).rows_s for batch in (1, 99)
    )
    assert few == pytest.approx(512 * profile.storage.row_s)
    assert many == pytest.approx(MANIFEST.embeddings.rows * profile.storage.row_s)


@pytest.mark.parametrize("graph", ["embed", "attention", "ffn", "connect", "head"])
def test_a_profile_without_a_graph_is_refused(graph: str) -> None:
    profile = make_profile()
    compute = {name: terms for name, terms in profile.compute.graphs.items() if name != graph}
    with pytest.raises(ProfileError, match=f"{graph!r}.*sti calibrate"):
        run_costs(
            MANIFEST,
            profile.with_lanes({COMPUTE: ComputeProfile(compute)}),
            Workload(1, 8),
            3,
            threads=1,
        )


def test_a_profile_without_a_fidelity_is_refused() -> None:
    profile = make_profile(ladder=(2, 3, 4, 8))
    with pytest.raises(ProfileError, match=r"6 bits.*sti calibrate"):
        run_costs(MANIFEST, profile, Workload(1, 8), 3, threads=1)


def test_a_deadline_holds_for_95_of_100_runs() -> None:
    profile = make_profile(jitter=1.25)
    assert deadline_s(profile, Target(0.1, 0)) == pytest.approx(0.08)
    assert deadline_s(profile, Target(None, 0)) is None
