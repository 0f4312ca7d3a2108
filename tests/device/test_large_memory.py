"""Large memory that is freed is the system's again, whichever thread had it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sti.device import host
from tests.support.commands import ENVIRONMENT

MB = 1_000_000
CHILD = """
import threading
import numpy as np
from sti.device import host

host.map_large_memory()

def work():
    for size in (24_000_000, 16_000_000, 12_000_000, 4_000_000):
        found = np.ones(size, np.uint8)
        del found
    before_end.set()
    end.wait()

before, before_end, end = host.anonymous_bytes(), threading.Event(), threading.Event()
thread = threading.Thread(target=work)
thread.start()
before_end.wait()
host.trim_heap()
print(host.anonymous_bytes() - before)
end.set()
thread.join()
"""


@pytest.mark.skipif(host.anonymous_bytes() is None, reason="the system does not count memory")
def test_large_memory_that_a_thread_freed_is_given_back() -> None:
    found = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, check=True, text=True, env=ENVIRONMENT
    )
    assert int(found.stdout) < 2 * MB
