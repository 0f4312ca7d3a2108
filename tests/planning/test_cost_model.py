"""The shape of a run: which step waits for which, and what the steps cost."""

from __future__ import annotations

from random import Random

import pytest

from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.device.profile import ComputeProfile
from sti.errors import ProfileError
from sti.model.workload import Workload
from sti.planning.cost_model import (
    FIRST_STEPS,
    STEPS_PER_BLOCK,
    BlockWork,
    RunCosts,
    deadline_s,
    run_costs,
    run_steps,
)
from sti.planning.plan import Target
from sti.planning.span import Span
from sti.planning.timeline import simulate
from tests.support.synthetic import LADDER, make_manifest, make_profile

MANIFEST = make_manifest(Random(0), layers=3, ladder=LADDER)
KINDS = ("attention", "ffn") * 3


def costs(threads: int = 1, *, contention: float = 1.0) -> RunCosts:
    profile = make_profile(contention=contention)
    return run_costs(MANIFEST, profile, Workload(2, 64), 3, threads=threads)


def spans(storage_s: float, decode_s: float, *, read_ahead: int) -> list[dict[str, Span]]:
    """The spans of six equal blocks on the three lanes."""
    works = [BlockWork(kind, storage_s, decode_s, 3) for kind in KINDS]
    found = costs()
    steps = run_steps(found, works, read_ahead=read_ahead)
    schedule = simulate(found.lanes, steps).spans
    lanes = (STORAGE, DECODE, COMPUTE)
    return [
        dict(zip(lanes, schedule[first : first + STEPS_PER_BLOCK], strict=True))
        for first in range(FIRST_STEPS, len(steps) - 1, STEPS_PER_BLOCK)
    ]


def test_a_block_is_read_then_decoded_then_computed() -> None:
    for block in spans(2e-3, 1e-3, read_ahead=2):
        assert block[STORAGE].end_s <= block[DECODE].start_s
        assert block[DECODE].end_s <= block[COMPUTE].start_s


def test_token_rows_come_before_blocks_and_before_the_embedding() -> None:
    found = costs()
    schedule = simulate(
        found.lanes, run_steps(found, [BlockWork("ffn", 1.0, 1.0, 3)], read_ahead=1)
    )
    text, rows, embed, storage = schedule.spans[:4]
    assert text == Span(0.0, found.tokenize_s, "tokenize")
    assert rows == Span(text.end_s, text.end_s + found.rows_s, "embeddings")
    assert embed.start_s == storage.start_s == rows.end_s


@pytest.mark.parametrize("read_ahead", [1, 2, 4])
def test_reading_stays_within_the_ring(read_ahead: int) -> None:
    blocks = spans(1e-6, 5e-3, read_ahead=read_ahead)
    for index, block in enumerate(blocks):
        before = index - 1 - read_ahead
        if before >= 0:
            assert block[STORAGE].start_s == pytest.approx(blocks[before][DECODE].end_s)
        else:
            assert block[STORAGE].end_s < blocks[0][DECODE].end_s


def test_blocks_that_read_nothing_take_no_slot() -> None:
    held = [BlockWork("attention", 0.0, 5e-3, 3), BlockWork("ffn", 0.0, 5e-3, 3)]
    read = [BlockWork("attention", 1e-6, 5e-3, 3), BlockWork("ffn", 1e-6, 5e-3, 3)]
    found = costs()
    schedule = simulate(found.lanes, run_steps(found, [*held, *read], read_ahead=1)).spans
    last_read, first_decode = schedule[FIRST_STEPS + 9], schedule[FIRST_STEPS + 1]
    assert last_read.end_s < first_decode.end_s


def test_decode_waits_for_a_working_buffer_of_its_kind() -> None:
    blocks, buffers = spans(1e-6, 1e-6, read_ahead=5), costs().buffers
    assert sorted(buffers.values()) == [1, 2]
    for index, (kind, block) in enumerate(zip(KINDS, blocks, strict=True)):
        taken_over = index - 2 * buffers[kind]
        freed_s = blocks[taken_over][COMPUTE].end_s if taken_over >= 0 else 0.0
        ready_s = max(block[STORAGE].end_s, blocks[index - 1][DECODE].end_s if index else 0.0)
        assert block[DECODE].start_s == pytest.approx(max(freed_s, ready_s))


def test_decode_threads_share_the_shards_of_a_block_in_rounds() -> None:
    work = BlockWork("ffn", 0.0, 3e-3, shards=3)
    for threads, rounds in ((1, 3), (2, 2), (3, 1), (8, 1)):
        found = costs(threads)
        schedule = simulate(found.lanes, run_steps(found, [work], read_ahead=1))
        span = schedule.spans[FIRST_STEPS + 1]
        assert span.end_s - span.start_s == pytest.approx(rounds * 1e-3)


def test_contention_slows_compute_while_there_is_something_left_to_decode() -> None:
    alone, beside = costs(), costs(contention=1.5)
    assert beside.embed_s == pytest.approx(1.5 * alone.embed_s)
    slow, quick = beside.compute_s(KINDS), alone.compute_s(KINDS)
    assert slow[:-1] == pytest.approx([1.5 * each for each in quick[:-1]])
    assert slow[-1] == quick[-1]
    assert beside.head_s == alone.head_s


def test_decoding_costs_shards_and_weights_of_what_is_in_use() -> None:
    found, block = costs(), MANIFEST.blocks[0]
    expected = 2 * found.shard_s + block.shard_weights * (found.weight_s[4] + found.weight_s[2])
    assert found.decode_s(block, (4, 0, 2)) == pytest.approx(expected)


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
