"""Threads that the system, or a fork, keeps from starting."""

from __future__ import annotations

from tests.support.processes import ended

FORKED = """
import os, threading, time, warnings

from sti.errors import RunError
from sti.storage.threads import start_thread

warnings.simplefilter("ignore")  # Python warns of forks amid threads
names = ("_start_joinable_thread", "_start_new_thread")
name = next(name for name in names if hasattr(threading, name))
begin = getattr(threading, name)

def forks(function, *rest, **named):
    "Forks, as a signal handler may, before the thread has said that it runs."
    def late(*given):
        time.sleep(0.3)
        return function(*given)
    begun = begin(late, *rest, **named)
    if child := os.fork():
        children.append(child)
    return begun

children = []
setattr(threading, name, forks)
done = threading.Event()
try:
    start_thread(threading.Thread(target=done.set, name="sti-made-up"))
except RunError as error:
    assert "'sti-made-up' belongs to process" in str(error) and not children, error
    os._exit(7)
assert children and done.wait(20)
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""


def test_a_fork_while_a_thread_starts_does_not_wait_for_it_in_the_child() -> None:
    found = ended(FORKED)
    assert (found.stdout, found.stderr) == ("7\n", "")
