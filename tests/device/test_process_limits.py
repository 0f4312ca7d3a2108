"""Limits of a process that are too low: one typed error, before libraries end the process."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import sti
from sti.device import process_limits
from sti.device.process_limits import check_numpy, check_room, limit_error
from sti.errors import InputError, LimitError

MB = 1_000_000
LIBRARY = """
import sti
try:
    sti.Engine
except sti.LimitError as error:
    print(error.limit)
"""


def limited(kind: int, value: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with a limit."""
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(sti.__file__).parent.parent)},
        preexec_fn=lambda: resource.setrlimit(kind, (value, value)),
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("kind", "value", "said", "option"),
    [
        (resource.RLIMIT_AS, 90 * MB, "out of memory: NumPy takes about", "(ulimit -v)"),
        (resource.RLIMIT_DATA, 30 * MB, "out of memory: NumPy takes about", "(ulimit -d)"),
        (resource.RLIMIT_NOFILE, 8, "too many open files: 13 more are needed", "(ulimit -n)"),
    ],
)
def test_a_program_that_cannot_work_says_so_in_one_line(
    kind: int, value: int, said: str, option: str
) -> None:
    ended = limited(kind, value, "-m", "sti", "plan", "no.sti.safetensors", "--json")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith(f"sti plan: {said}") and option in ended.stderr
    assert '"kind": "LimitError"' in ended.stdout


def test_the_library_says_so_too() -> None:
    ended = limited(resource.RLIMIT_AS, 90 * MB, "-c", LIBRARY)
    assert (ended.returncode, ended.stdout) == (0, "memory\n"), ended.stderr


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "files"),
        (OSError(errno.ENFILE, "Too many open files in system"), "files"),
        (RuntimeError("can't start new thread"), "threads"),
        (RuntimeError("pthread_create failed, error code: 11"), "threads"),
        (LimitError("known", limit="files"), "files"),
        (MemoryError(), None),
        (OSError(errno.ENOENT, "No such file"), None),
        (ValueError("too many open files in this text"), None),
    ],
)
def test_errors_that_come_of_a_limit_name_it(
    error: Exception, limit: str | None, without_memory_limits: None
) -> None:
    found = limit_error(error)
    assert (None if found is None else found.limit) == limit


def test_the_cause_of_an_error_may_be_a_limit() -> None:
    error = InputError("cannot be read")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    found = limit_error(error)
    assert found is not None and found.limit == "files"


@pytest.mark.parametrize(
    "error", [MemoryError(), ImportError("failed to map segment"), RuntimeError("std::bad_alloc")]
)
def test_lacking_memory_comes_of_a_limit_where_there_is_one(
    error: Exception, memory_limit: Callable[[int], None]
) -> None:
    memory_limit(1000 * MB)
    found = limit_error(error)
    assert found is not None and found.limit == "memory"
    assert "1.00 GB (ulimit -v)" in str(found) and "raise the limit" in str(found)


def test_what_takes_more_than_is_left_is_refused(memory_limit: Callable[[int], None]) -> None:
    memory_limit(10 * MB)
    with pytest.raises(LimitError, match=r"a session of ONNX Runtime takes about 40\.0 MB"):
        check_room(process_limits.SESSION)
    memory_limit(1 << 50)
    check_room(process_limits.SESSION)


def test_blas_is_given_one_thread_where_none_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    check_numpy()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "8"
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    check_numpy()
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setattr(threading.Thread, "start", refuse)
    check_numpy()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


@pytest.fixture
def without_memory_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)


@pytest.fixture
def memory_limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets a limit on the address space, as far as the system is asked for it."""

    def set_limit(size: int) -> None:
        limits = {resource.RLIMIT_AS: size}
        monkeypatch.setattr(
            resource, "getrlimit", lambda kind: (limits.get(kind, resource.RLIM_INFINITY),) * 2
        )

    return set_limit
