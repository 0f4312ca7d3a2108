"""Shares of time that measuring threads waited for a core, as the system tells it and otherwise."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from sti.calibration import disturbance
from sti.calibration.disturbance import Watch, is_quiet

OWN, WORKER, READER = 1, 7, 8


@dataclass
class Machine:
    """What the clocks and the scheduler of a made-up machine say."""

    wall_s: float = 5.0
    cpu_s: float = 1.0
    waited: dict[int, float | None] = field(default_factory=lambda: {OWN: 0.0, WORKER: 0.0})
    ran: dict[int, float | None] = field(default_factory=lambda: {READER: 0.0})

    def sums(self, name: str, threads: tuple[int, ...]) -> float | None:
        found = [getattr(self, name)[thread] for thread in threads]
        return None if None in found else sum(found)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(threading, "get_native_id", lambda: OWN)
    monkeypatch.setattr(disturbance, "perf_counter", lambda: made.wall_s)
    monkeypatch.setattr(time, "thread_time", lambda: made.cpu_s)
    monkeypatch.setattr(disturbance, "waited_s", lambda threads: made.sums("waited", threads))
    monkeypatch.setattr(disturbance, "ran_s", lambda threads: made.sums("ran", threads))
    return made


def test_what_the_calling_thread_waited_in_the_run_queue_counts(machine: Machine) -> None:
    watch = Watch()
    machine.wall_s += 1.0
    machine.waited[OWN] = 0.25
    assert watch.share() == pytest.approx(0.25)
    watch.start()
    machine.wall_s += 1.0
    assert watch.share() == 0.0


def test_a_worker_counts_but_not_while_a_thread_that_it_woke_reads(machine: Machine) -> None:
    watch = Watch([WORKER], [READER])
    machine.wall_s += 1.0
    machine.waited[WORKER], machine.ran[READER] = 0.3, 0.3
    assert watch.share() == 0.0
    machine.waited[WORKER] = 0.7
    assert watch.share() == pytest.approx(0.4)


def test_time_on_no_processor_and_in_no_read_counts_where_one_thread_does_everything(
    machine: Machine,
) -> None:
    watch = Watch()
    machine.wall_s += 1.0
    machine.cpu_s += 0.5
    assert watch.share(alone_s=0.3) == pytest.approx(0.2)
    assert watch.share() == 0.0
    machine.waited[OWN] = None
    assert watch.share(alone_s=0.3) == pytest.approx(0.2)


@pytest.mark.parametrize("step", [-1.0, 0.0])
def test_a_clock_that_was_set_back_says_nothing(machine: Machine, step: float) -> None:
    watch = Watch()
    machine.wall_s += step
    machine.waited[OWN] = 0.5
    assert watch.share(alone_s=0.0) == 0.0


def test_a_share_is_never_more_than_all(machine: Machine) -> None:
    watch = Watch()
    machine.wall_s += 0.1
    machine.waited[OWN] = 3.0
    assert watch.share() == 1.0


@pytest.mark.parametrize(("share", "quiet"), [(0.0, True), (0.05, True), (0.3, False)])
def test_a_machine_is_quiet_if_no_thread_waits_for_long(
    monkeypatch: pytest.MonkeyPatch, share: float, quiet: bool
) -> None:
    shares = iter([0.0, share])
    monkeypatch.setattr("sti.device.host.core_count", lambda: 2)
    monkeypatch.setattr(Watch, "share", lambda *_, **__: next(shares))
    assert is_quiet(4) is quiet
    assert next(shares, None) is None, "a thread for each core, no more"
