"""What the lane timer observes: each lane and each graph, once at least, over any back end."""

from __future__ import annotations

from sti.calibration.lane_timer import CONNECT_REPEATS, LaneTimer
from sti.pack.pack_reader import PackReader
from tests.support.numpy_backend import NumpyBackend
from tests.support.packs import tiny_pack


def test_connect_is_timed_apart_for_every_workload_that_steps_are_timed_for() -> None:
    with PackReader.open(tiny_pack()) as reader:
        backend = NumpyBackend(reader)
        timer = LaneTimer(reader, backend)
        try:
            seen = timer.observe(0.0)
        finally:
            timer.close()
    workloads = {time.workload for time in seen.steps}
    timed = [work for end, work, seconds in seen.ends if end == "connect" and seconds > 0]
    assert set(timed) == workloads and len(timed) == len(workloads)
    # Alone, that is: without a block in front of it.
    alone = [
        one
        for one, before in zip(backend.asked[1:], backend.asked, strict=False)
        if one[0] == before[0] == "connect"
    ]
    assert len(alone) == CONNECT_REPEATS * len(workloads)


def test_every_fidelity_is_decoded_and_every_lane_is_seen() -> None:
    with PackReader.open(tiny_pack()) as reader:
        timer = LaneTimer(reader, NumpyBackend(reader))
        try:
            seen = timer.observe(0.0)
        finally:
            timer.close()
        assert {time.bits for time in seen.steps} == set(reader.manifest.ladder)
        assert {time.kind for time in seen.steps} == {kind.name for kind in reader.manifest.kinds}
    assert seen.pipelined and all(run.busy_s["compute"] > 0 for run in seen.pipelined)
    assert {end for end, _, _ in seen.ends} == {"embed", "connect", "head"}
