"""The shape of a run: which step waits for which, and what the steps cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from sti.device.lane_profiles import ComputeProfile, RunProfile
from sti.device.lanes import (
    COMPUTE,
    DECODE,
    LANES,
    PIPELINED,
    SEQUENTIAL,
    STORAGE,
    LaneThreads,
    shared,
)
from sti.errors import ProfileError
from sti.model.fidelity import groups_in_use
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.cost_model import (
    FIRST_STEPS,
    RunCosts,
    StepWork,
    deadline_s,
    promised_s,
    run_costs,
    run_steps,
)
from sti.planning.plan import EXACT, NARROW, Target
from sti.planning.span import Span
from sti.planning.timeline import simulate
from tests.support.synthetic import LADDER, make_manifest, make_profile

MANIFEST = make_manifest(Random(0), layers=3, ladder=LADDER)
GROUPS = MANIFEST.groups
ATTENTION, FFN = GROUPS[:2]


def costs(
    threads: LaneThreads = PIPELINED,
    *,
    manifest: Manifest = MANIFEST,
    contention: float = 1.0,
    tokens: int = 64,
) -> RunCosts:
    profile = make_profile(kinds=(threads,), contention=contention)
    width = manifest.dimensions.slices
    return run_costs(manifest, profile, Workload(2, tokens), width, threads=threads)


class Simulated:
    """What each step of a simulated run does, by lane and name."""

    def __init__(
        self,
        found: RunCosts,
        works: Sequence[tuple[SliceGroup, float, float, float]],
        *,
        read_ahead: int = 3,
    ) -> None:
        named = [StepWork(*work, f"step {place}") for place, work in enumerate(works)]
        self.steps = run_steps(found, named, read_ahead=read_ahead)
        self.schedule = simulate(self.steps)
        self.total_s = self.schedule.spans[-1].end_s

    def spans(self, lane: str, name: int | str) -> list[tuple[int, Span]]:
        """The threads that do a step, or a share of it, and when."""
        wanted = f"step {name}" if isinstance(name, int) else name
        rows = zip(self.steps, self.schedule.threads, self.schedule.spans, strict=True)
        return [
            (thread, span)
            for step, thread, span in rows
            if step.lane == lane and step.name == wanted
        ]

    def span(self, lane: str, name: int | str) -> Span:
        ((_, span),) = self.spans(lane, name)
        return span

    def thread(self, lane: str, name: int | str) -> int:
        ((thread, _),) = self.spans(lane, name)
        return thread


def alike(storage_s: float, decode_s: float, compute_s: float, *, read_ahead: int) -> Simulated:
    """Six equal groups, each a block of its own, on a thread for each lane."""
    works = [(group, storage_s, decode_s, compute_s) for group in GROUPS]
    return Simulated(costs(), works, read_ahead=read_ahead)


def block(kind: str, groups: int, slices: int = 6) -> tuple[Manifest, list[SliceGroup]]:
    """A model whose blocks have so many groups, and those of two blocks of a kind."""
    manifest = make_manifest(
        Random(0), layers=2, slices=slices, ladder=LADDER, groups=(groups, groups)
    )
    return manifest, [*manifest.block(0, kind), *manifest.block(1, kind)]


@pytest.mark.parametrize("threads", [SEQUENTIAL, PIPELINED, shared(1), shared(2)], ids=str)
def test_a_group_is_read_then_decoded_then_computed(threads: LaneThreads) -> None:
    manifest, groups = block("ffn", 2)
    run = Simulated(costs(threads, manifest=manifest), [(g, 2e-3, 1e-3, 3e-3) for g in groups])
    for place in range(len(groups)):
        read, decode, compute = (run.span(lane, place) for lane in (STORAGE, DECODE, COMPUTE))
        assert read.end_s <= decode.start_s < decode.end_s <= compute.start_s


@pytest.mark.parametrize("threads", [SEQUENTIAL, PIPELINED, shared(2)], ids=str)
def test_token_rows_come_before_groups_and_before_the_embedding(threads: LaneThreads) -> None:
    found = costs(threads)
    run = Simulated(found, [(FFN, 1.0, 1.0, 1.0)])
    text, rows, embed = run.schedule.spans[:FIRST_STEPS]
    assert text == Span(0.0, found.tokenize_s, "tokenize")
    assert rows == Span(text.end_s, text.end_s + found.rows_s, "embeddings")
    assert embed.start_s == rows.end_s
    before = embed if threads == SEQUENTIAL else rows
    assert run.span(STORAGE, 0).start_s == before.end_s


def test_one_thread_does_everything_one_after_the_other() -> None:
    manifest, groups = block("ffn", 3)
    run = Simulated(costs(SEQUENTIAL, manifest=manifest), [(g, 2e-3, 1e-3, 3e-3) for g in groups])
    assert set(run.schedule.threads) == {0}
    assert run.total_s == pytest.approx(sum(step.work_s for step in run.steps))


@pytest.mark.parametrize("threads", [PIPELINED, shared(1)], ids=str)
@pytest.mark.parametrize("read_ahead", [1, 2, 4])
def test_reading_stays_within_the_ring(read_ahead: int, threads: LaneThreads) -> None:
    works = [(group, 1e-6, 5e-3, 0.0) for group in GROUPS]
    run = Simulated(costs(threads), works, read_ahead=read_ahead)
    for index in range(len(GROUPS)):
        before = index - 1 - read_ahead
        if before >= 0:
            freed_s = run.span(DECODE, before).end_s
            assert run.span(STORAGE, index).start_s == pytest.approx(freed_s)
        else:
            assert run.span(STORAGE, index).end_s < run.span(DECODE, 0).end_s


def test_slots_are_given_back_in_the_order_of_the_groups() -> None:
    """The second group is decoded first; its slot stays taken until the first one is, too."""
    manifest, groups = block("ffn", 2)
    works = [(g, 1e-6, s, 1e-6) for g, s in zip(groups, (9e-3, 1e-3, 1e-3, 1e-3), strict=True)]
    run = Simulated(costs(shared(2), manifest=manifest), works, read_ahead=1)
    assert run.span(DECODE, 1).end_s < run.span(DECODE, 0).end_s
    assert run.span(STORAGE, 2).start_s == pytest.approx(run.span(DECODE, 0).end_s)
    assert run.span(STORAGE, 3).start_s == pytest.approx(run.span(STORAGE, 2).end_s)


def test_groups_that_read_nothing_take_no_slot() -> None:
    held = [(ATTENTION, 0.0, 5e-3, 1e-3), (FFN, 0.0, 5e-3, 1e-3)]
    read = [(ATTENTION, 1e-6, 5e-3, 1e-3), (FFN, 1e-6, 5e-3, 1e-3)]
    run = Simulated(costs(), [*held, *read], read_ahead=1)
    assert run.span(STORAGE, 3).end_s < run.span(DECODE, 0).end_s


def test_a_decode_thread_waits_for_a_working_buffer() -> None:
    run = alike(1e-6, 1e-6, 5e-3, read_ahead=5)
    for index in range(len(GROUPS)):
        taken_over = index - PIPELINED.buffers
        freed_s = run.span(COMPUTE, taken_over).end_s if taken_over >= 0 else 0.0
        decoded_s = run.span(DECODE, index - 1).end_s if index else 0.0
        ready_s = max(run.span(STORAGE, index).end_s, decoded_s)
        assert run.span(DECODE, index).start_s == pytest.approx(max(freed_s, ready_s))


@pytest.mark.parametrize("threads", [SEQUENTIAL, PIPELINED, shared(1), shared(2)], ids=str)
def test_a_block_is_connected_when_all_of_it_is_computed_and_before_the_next_one_is(
    threads: LaneThreads,
) -> None:
    manifest, groups = block("ffn", 2)
    times = (3e-3, 1e-3, 1e-3, 1e-3)
    works = [(group, 1e-6, 1e-4, s) for group, s in zip(groups, times, strict=True)]
    found = costs(threads, manifest=manifest)
    run = Simulated(found, works)
    computed = [run.span(COMPUTE, place) for place in range(4)]
    last = max(range(2), key=lambda place: computed[place].end_s)
    connect = run.span(COMPUTE, "0 ffn connect")
    assert connect.start_s == computed[last].end_s
    assert connect.duration_s == pytest.approx(found.connect_s)
    assert run.thread(COMPUTE, "0 ffn connect") == run.thread(COMPUTE, last)
    assert min(span.start_s for span in computed[2:]) >= connect.end_s


def test_threads_take_groups_as_they_become_free_and_decode_ahead_of_the_next_block() -> None:
    manifest, groups = block("ffn", 4)
    decode_s, times = 1e-3, (12e-3, 2e-3, 2e-3, 2e-3, 3e-3, 3e-3, 3e-3, 3e-3)
    works = [(group, 0.0, decode_s, s) for group, s in zip(groups, times, strict=True)]
    run = Simulated(costs(shared(2), manifest=manifest), works)
    # The thread that does not embed begins; the other one then takes the three short groups.
    assert [run.thread(COMPUTE, place) for place in range(4)] == [1, 0, 0, 0]
    assert [run.thread(DECODE, place) for place in range(4)] == [1, 0, 0, 0]
    connect = run.span(COMPUTE, "0 ffn connect")
    ahead = run.span(DECODE, 4)
    assert (run.thread(DECODE, 4), ahead.end_s < connect.start_s) == (0, True)
    assert run.span(COMPUTE, 4).start_s == connect.end_s
    assert run.thread(COMPUTE, "0 ffn connect") == run.thread(DECODE, 5) == 1


def test_where_blocks_have_fewer_groups_than_threads_these_take_shares_of_a_group() -> None:
    manifest, groups = block("ffn", 1)
    run = Simulated(costs(shared(3), manifest=manifest), [(g, 1e-3, 1e-3, 2e-3) for g in groups])
    for place in range(2):
        decoded, computed = run.spans(DECODE, place), run.spans(COMPUTE, place)
        assert {thread for thread, _ in decoded} == {thread for thread, _ in computed} == {0, 1, 2}
        latest_s = max(span.end_s for _, span in decoded)
        assert all(span.start_s >= latest_s for _, span in computed)
    pairs, four = block("ffn", 2)
    halves = Simulated(costs(shared(4), manifest=pairs), [(g, 0.0, 1e-3, 2e-3) for g in four])
    assert [len(halves.spans(DECODE, place)) for place in range(4)] == [2] * 4


@pytest.mark.parametrize(("threads", "shares"), [(1, 1), (2, 2), (3, 3), (4, 4)])
def test_a_share_is_of_whole_shards_and_of_tokens(threads: int, shares: int) -> None:
    whole, found = costs(shared(1)), costs(shared(threads))
    alone_s = whole.decode_s(FFN, {4: 3})
    assert found.share_counts == {"attention": shares, "ffn": shares}
    assert found.decode_s(FFN, {4: 3}) == pytest.approx(alone_s * -(-3 // shares) / 3)
    assert found.compute_s(FFN, EXACT) == pytest.approx(
        whole.compute_s(FFN, EXACT) * -(-64 // shares) / 64, rel=0.05
    )
    short = costs(shared(threads), tokens=7)
    assert short.compute_s(FFN, EXACT) == costs(shared(1), tokens=7).compute_s(FFN, EXACT)


def test_groups_of_which_no_slice_is_in_use_are_not_shared_out() -> None:
    assert [groups_in_use((2, 3, 1), width) for width in (1, 2, 3, 5, 6)] == [1, 1, 2, 2, 3]


def test_contention_slows_each_lane_but_not_the_head() -> None:
    profile = make_profile()
    run = RunProfile({STORAGE: 1.5, DECODE: 2.0, COMPUTE: 3.0}, 1e-3, 5e-3, 1.0)
    alone, beside = (
        run_costs(
            MANIFEST,
            replace(profile, runs={PIPELINED.name: each}),
            Workload(2, 64),
            3,
            threads=PIPELINED,
        )
        for each in (RunProfile(dict.fromkeys(LANES, 1.0), 0.0, 0.0, 1.0), run)
    )
    assert beside.read_s(3, 10**6) == pytest.approx(1.5 * alone.read_s(3, 10**6))
    assert beside.decode_s(FFN, {2: 3}) == pytest.approx(2.0 * alone.decode_s(FFN, {2: 3}))
    expected = 3.0 * alone.compute_s(FFN, EXACT) + 1e-3
    assert beside.compute_s(FFN, EXACT) == pytest.approx(expected)
    assert beside.embed_s == pytest.approx(3.0 * alone.embed_s)
    assert beside.connect_s == pytest.approx(3.0 * alone.connect_s)
    assert (beside.head_s, beside.fixed_s) == (alone.head_s, 5e-3)


def test_narrow_steps_take_the_time_of_their_own_graphs_where_those_were_measured() -> None:
    for narrow, share in ((0.6, 0.6), (None, 1.0)):
        found = run_costs(
            MANIFEST, make_profile(narrow=narrow), Workload(2, 64), 3, threads=PIPELINED
        )
        exact_s = found.compute_s(FFN, EXACT)
        assert found.compute_s(FFN, NARROW) == pytest.approx(share * exact_s)
        assert NARROW in found.variants or narrow is None


@pytest.mark.parametrize(
    ("width", "used"), [(5, (1, 2, 2)), (4, (1, 2, 1)), (3, (1, 2)), (1, (1,))]
)
def test_groups_compute_what_is_in_use_of_them_and_the_last_ends_the_block(
    width: int, used: tuple[int, ...]
) -> None:
    manifest = make_manifest(Random(0), layers=1, slices=5, ladder=LADDER, groups=(3, 1))
    profile, workload = make_profile(contention=1.0), Workload(2, 64)
    found = run_costs(manifest, profile, workload, width, threads=PIPELINED)
    attention = [group for group in manifest.block(0, "attention") if group.used(width)]
    assert tuple(group.used(width) for group in attention) == used
    assert [found.ends_block(group) for group in attention] == [False] * (len(used) - 1) + [True]
    expected = [profile.compute_s("attention", workload, each) for each in used]
    assert [found.compute_s(group, EXACT) for group in attention] == pytest.approx(expected)
    (whole,) = manifest.block(0, "ffn")
    assert found.compute_s(whole, EXACT) == pytest.approx(profile.compute_s("ffn", workload, width))


def test_decoding_costs_shards_and_weights_of_what_is_in_use() -> None:
    found, group = costs(), GROUPS[0]
    expected = 2 * found.shard_s + group.shard_weights * (found.weight_s[4] + found.weight_s[2])
    assert found.decode_s(group, {4: 1, 2: 1}) == pytest.approx(expected)


def test_token_rows_are_no_more_than_the_vocabulary() -> None:
    profile = make_profile()
    few, many = (
        run_costs(MANIFEST, profile, Workload(batch, 512), 3, threads=PIPELINED).rows_s
        for batch in (1, 99)
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
            threads=PIPELINED,
        )


def test_a_profile_without_a_fidelity_is_refused() -> None:
    profile = make_profile(ladder=(2, 3, 4, 8))
    with pytest.raises(ProfileError, match=r"6 bits.*sti calibrate"):
        run_costs(MANIFEST, profile, Workload(1, 8), 3, threads=PIPELINED)


def test_a_profile_without_such_runs_is_refused() -> None:
    profile = make_profile(kinds=(shared(2),))
    with pytest.raises(ProfileError, match=r"no sequential runs.*sti calibrate"):
        run_costs(MANIFEST, profile, Workload(1, 8), 3, threads=SEQUENTIAL)


def test_a_deadline_holds_for_95_of_100_runs() -> None:
    profile = make_profile(jitter=1.25)
    assert deadline_s(profile, Target(0.1, 0), PIPELINED) == pytest.approx(0.08)
    assert deadline_s(profile, Target(None, 0), PIPELINED) is None
    assert promised_s(profile, 0.08, PIPELINED) == pytest.approx(0.1)
