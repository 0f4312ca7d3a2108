"""Names of lanes and kinds of threads."""

from __future__ import annotations

import pytest

from sti.device.lanes import (
    PIPELINED,
    SEQUENTIAL,
    LaneThreads,
    by_work,
    lane_of,
    same_work,
    shared,
)

BUSY_S = {"storage": 8.0, "decode": 2.0, "compute": 6.0, "decode 1": 1.0, "compute 1": 5.0}


def test_lanes_of_further_threads_have_their_number() -> None:
    assert [lane_of("compute", thread) for thread in range(3)] == [
        "compute",
        "compute 1",
        "compute 2",
    ]
    assert same_work("compute 2", "compute") and same_work("compute", "compute")
    assert not same_work("decode 1", "compute")


def test_work_is_what_all_threads_do_together() -> None:
    assert by_work(BUSY_S) == {"storage": 8.0, "decode": 3.0, "compute": 11.0}
    assert by_work({}) == {"storage": 0.0, "decode": 0.0, "compute": 0.0}


@pytest.mark.parametrize(
    ("threads", "name", "buffers", "ideal_s"),
    [
        (SEQUENTIAL, "sequential", 1, 22.0),
        (PIPELINED, "pipelined", 3, 11.0),
        (shared(1), "shared", 1, 14.0),
        (shared(2), "shared", 2, 8.0),
    ],
)
def test_kinds_of_threads_differ_in_what_they_hold_and_could_reach(
    threads: LaneThreads, name: str, buffers: int, ideal_s: float
) -> None:
    assert (threads.name, threads.buffers) == (name, buffers)
    assert threads.ideal_s(by_work(BUSY_S)) == ideal_s
