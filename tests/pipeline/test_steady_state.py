"""Runs that follow runs take no memory of their own: what they work in is there already."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest

import sti
from sti.calibration.sample_texts import SampleTexts
from sti.device import host
from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from tests.support.paths import MODELS

PACK = MODELS / "all-MiniLM-L6-v2.sti.safetensors"
LARGE = 64 << 10
"""Bytes of an allocation that a run must not make."""
RUNS = 30
SLACK = 1 << 20
"""By which resident memory may differ over the runs of a round, for the allocator of small
objects."""
ROUNDS = 4
"""What grows does so in each of them; what else the process does takes memory in some."""


@pytest.fixture
def engine() -> sti.Engine:
    return sti.Engine.open(PACK, fidelity=4, preload="1MB", threads=2)


@pytest.mark.parametrize("threads", [SEQUENTIAL, PIPELINED, shared(2)], ids=str)
@pytest.mark.parametrize(("batch", "tokens"), [(1, 16), (1, 128), (4, 24)])
def test_no_large_allocation_in_the_steady_state(
    engine: sti.Engine, threads: LaneThreads, batch: int, tokens: int
) -> None:
    with engine:
        texts = SampleTexts(engine.reader).texts(batch, tokens)
        plan = engine.plan_for(tokens=tokens, batch=batch)
        engine.set_target(plan=replace(plan, threads=threads))
        for _ in range(3):
            engine.run(texts)
            engine.preloaded()
        tracemalloc.start()
        try:
            engine.run(texts)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            engine.run(texts)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # Everything a run holds at a time together is less than one large allocation.
    assert peak - before < LARGE


def test_resident_memory_does_not_grow_from_run_to_run(engine: sti.Engine) -> None:
    with engine:
        texts = SampleTexts(engine.reader).texts(1, 128)
        for _ in range(5):
            engine.run(texts)
            engine.preloaded()
        resident = [host.rss_bytes()]
        for _ in range(ROUNDS):
            for _ in range(RUNS):
                engine.run(texts)
            resident.append(host.rss_bytes())
    found = [value for value in resident if value is not None]
    if len(found) < len(resident):
        pytest.skip("this system does not tell resident memory")
    assert min(after - before for before, after in pairwise(found)) < SLACK
    assert found[-1] - found[0] < ROUNDS * SLACK
