"""What every test gets: leak checks, an isolated cache, packs, property tests without deadlines.

A test fails when it leaves a thread or a file descriptor behind.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports ONNX Runtime: its telemetry keeps a database and a thread of its own.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Processes that tests start keep what they compiled: each would compile all of our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from tests.support.checkpoints import Task, write_checkpoint
from tests.support.counted_memory import CountedMemory, counted_memory

# So does this one: it would compile all tests anew in every run.
sys.dont_write_bytecode = False

# A shell starts what it runs in the background so that it ignores Ctrl-C, and processes that tests
# start and interrupt would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_GRACE_S = 2.0

# How long an example takes says nothing where the machine is busy. The examples are the same in
# every run, so that a change is blamed for what it broke alone; `--hypothesis-profile=default`
# draws others.
settings.register_profile(
    "sti", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sti")


def _descriptors() -> dict[int, str]:
    """Open descriptors and what they are; empty where the system does not tell."""
    found: dict[int, str] = {}
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in names:
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def _new_threads(before: set[threading.Thread]) -> list[str]:
    """Threads started since that do not end within the grace."""
    deadline = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline:
        left = [t.name for t in threading.enumerate() if t not in before]
        if not left:
            return []
        time.sleep(0.01)
    return left


@pytest.fixture(scope="module", autouse=True)
def settled_heap() -> None:
    """What was imported and collected so far is no garbage: it is not to be looked through again.

    Engines collect garbage when they open, which would take a tenth of a second each beside all
    that a test run holds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """What a test opens or starts is closed or ended when it returns.

    Fixtures of a wider scope (an engine shared by a module) are set up before this one, so what
    they hold open is no leak.
    """
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    left = _new_threads(threads)
    assert not left, f"threads left running: {', '.join(left)}"
    after = _descriptors()
    if set(after) - set(descriptors):
        gc.collect()
        after = _descriptors()
    leaked = [f"{fd} ({name})" for fd, name in after.items() if fd not in descriptors]
    assert not leaked, f"descriptors left open: {', '.join(leaked)}"


@pytest.fixture(scope="session")
def pack_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], Path]:
    """Makes a tiny pack of random weights for a task; once a session each."""
    from shard_tools.packing.build import build
    from shard_tools.packing.options import BuildOptions

    made: dict[Task, Path] = {}

    def make(task: Task) -> Path:
        if task not in made:
            place = tmp_path_factory.mktemp(task)
            checkpoint = write_checkpoint(place / "checkpoint", task=task)
            made[task] = place / f"{task}.sti.safetensors"
            build(checkpoint, made[task], BuildOptions(), progress=False)
        return made[task]

    return make


@pytest.fixture(scope="session")
def tiny_pack(pack_for: Callable[[Task], Path]) -> Path:
    """A tiny sentence-embedding pack; not to be changed."""
    return pack_for("embedding")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests read and write no cache or configuration of the user's."""
    place = tmp_path_factory.getbasetemp() / "xdg"
    for plan in (place / "cache" / "sti").glob("plan-*.json"):  # each test plans for itself
        plan.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    monkeypatch.delenv("STI_HISTORY", raising=False)  # benchmarks turn it off
    return place


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedMemory:
    """A made-up machine, on which opening takes the least that is believed."""
    return counted_memory(tmp_path / "root", monkeypatch)
