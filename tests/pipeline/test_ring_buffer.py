"""The ring between storage and decode lane."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.pipeline.ring_buffer import Ring
from sti.pipeline.workers import Channel
from sti.planning.memory import ring_bytes

sizes = st.lists(st.integers(1, 20), min_size=1, max_size=40)


@given(sizes, st.integers(1, 4))
def test_a_view_keeps_its_bytes_until_it_is_given_back(given_sizes: list[int], most: int) -> None:
    ring = Ring(np.zeros(ring_bytes(given_sizes, most), dtype=np.uint8), most=most)
    handed: Channel[tuple[int, np.ndarray]] = Channel()
    damaged: list[int] = []

    def consume() -> None:
        for _ in given_sizes:
            mark, view = handed.get()
            if (view != mark).any():
                damaged.append(mark)
            ring.give_back()

    thread = threading.Thread(target=consume)
    thread.start()
    for number, size in enumerate(given_sizes, start=1):
        view = ring.take(size)
        assert view.size == size
        view[:] = number
        handed.put((number, view))
    thread.join()
    assert not damaged


def test_take_waits_until_the_first_view_is_given_back() -> None:
    ring = Ring(np.zeros(10, dtype=np.uint8), most=2)
    ring.take(6)
    taken = threading.Event()

    def take() -> None:
        ring.take(6)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.05)
    ring.give_back()
    assert taken.wait(5)
    thread.join()


def test_a_failed_ring_raises_in_who_waits() -> None:
    ring = Ring(np.zeros(10, dtype=np.uint8), most=1)
    ring.take(6)
    ring.fail(ValueError("gone"))
    with pytest.raises(ValueError, match="gone"):
        ring.take(6)


@given(sizes, st.integers(1, 4))
def test_a_ring_has_room_for_any_neighbours(given_sizes: list[int], most: int) -> None:
    room = ring_bytes(given_sizes, most)
    for start in range(len(given_sizes)):
        assert sum(given_sizes[start : start + most]) <= room
