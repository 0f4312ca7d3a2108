"""Workers and channels: order, failure, and nothing left hanging."""

from __future__ import annotations

import threading

import pytest

from sti.pipeline.workers import Channel, Latch, Worker, wait_for_all
from tests.support.processes import ended

FORKED = """
import os, warnings
from sti.errors import RunError
from sti.pipeline import workers

warnings.simplefilter("ignore")  # Python warns of forks amid threads
checked, children = workers.check_process, []

def forks(process):
    "Forks, as a signal handler may, when the process was found to be the right one."
    checked(process)
    if not children:
        children.append(os.fork())

worker = workers.Worker("sti-test")
assert worker.submit(int).wait(20)
workers.check_process = forks
done = worker.submit(int)
if not children[0]:
    try:
        os._exit(1 if done.wait(3) else 2)
    except RunError:
        os._exit(7)
assert done.wait(20)
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
worker.close()
"""


def test_worker_runs_jobs_in_order_and_ends_with_close() -> None:
    worker, seen = Worker("sti-test"), []
    for number in range(50):
        done = worker.submit(lambda number=number: seen.append(number))
    assert done.wait(5)
    worker.close()
    worker.close()
    assert seen == list(range(50))
    assert not [thread for thread in threading.enumerate() if thread.name == "sti-test"]


def test_worker_without_jobs_starts_no_thread() -> None:
    before = threading.active_count()
    worker = Worker("sti-test")
    assert threading.active_count() == before
    worker.close()


def test_close_waits_for_the_jobs_already_submitted() -> None:
    worker, gate, seen = Worker("sti-test"), threading.Event(), []
    worker.submit(gate.wait)
    worker.submit(lambda: seen.append("late"))
    threading.Timer(0.05, gate.set).start()
    worker.close()
    assert seen == ["late"]


def test_channel_hands_over_in_order_between_threads() -> None:
    channel: Channel[int] = Channel()
    thread = threading.Thread(target=lambda: [channel.put(number) for number in range(100)])
    thread.start()
    assert [channel.get() for _ in range(100)] == list(range(100))
    thread.join()


def test_broken_channel_raises_in_every_later_get() -> None:
    channel: Channel[int] = Channel()
    channel.put(1)
    channel.fail(ValueError("gone"))
    assert channel.get() == 1
    for _ in range(3):
        with pytest.raises(ValueError, match="gone"):
            channel.get()


def test_broken_channel_wakes_who_waits() -> None:
    channel: Channel[int] = Channel()
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            channel.get()
        except ValueError as error:
            caught.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    channel.fail(ValueError("gone"))
    for thread in threads:
        thread.join(5)
    assert len(caught) == 3


def test_latch_holds_until_it_is_open_and_then_lets_everybody_pass() -> None:
    latch, passed = Latch(), list[int]()

    def pass_through(number: int) -> None:
        latch.wait()
        passed.append(number)

    threads = [threading.Thread(target=pass_through, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert not latch.wait(0.05) and not passed
    latch.open()
    for thread in threads:
        thread.join(20)
    assert sorted(passed) == [0, 1, 2]
    assert latch.wait()
    latch.fail(ValueError("too late"))
    assert latch.wait(0)


def test_latch_that_fails_raises_in_all_who_wait_and_in_later_ones() -> None:
    latch, caught = Latch(), list[BaseException]()

    def wait() -> None:
        try:
            latch.wait()
        except ValueError as error:
            caught.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    latch.fail(ValueError("gone"))
    for thread in threads:
        thread.join(20)
    assert len(caught) == 3
    with pytest.raises(ValueError, match="gone"):
        latch.wait()


def test_waiting_for_all_goes_on_after_an_interrupt() -> None:
    """Even where the interrupt comes while the last one is waited for."""
    first, second, stopped = Latch(), Latch(), list[BaseException]()
    first.fail(KeyboardInterrupt())  # stands for an interrupt of whoever waits

    def stop(error: BaseException) -> None:
        stopped.append(error)
        if len(stopped) == 2:
            first.open()
            threading.Timer(0.05, second.open).start()

    wait_for_all([first, second], stop)
    assert [type(error) for error in stopped] == [KeyboardInterrupt] * 2
    assert second.wait(0)


def test_an_interrupt_is_told_before_the_works_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, usual, left = Worker("sti-test"), Latch.wait, [1]

    def wait(latch: Latch, timeout_s: float | None = None) -> bool:
        found = usual(latch, timeout_s)
        if left and threading.current_thread() is threading.main_thread() and worker.is_alive:
            left.clear()
            raise KeyboardInterrupt
        return found

    def fail() -> None:
        raise ValueError("the work's own")

    worker.start()
    monkeypatch.setattr(Latch, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        worker.do(fail)
    worker.close()


def test_a_job_handed_over_amid_a_fork_is_not_waited_for_in_the_child() -> None:
    found = ended(FORKED)
    assert (found.stdout, found.stderr) == ("7\n", "")
