"""Limits that the system sets on this process (``ulimit``): memory, open files, threads.

In: the limits, what is taken of them, and errors. Out: an error that names the limit: before
libraries are loaded that would end the process where they find too little, and instead of the many
errors that lacking memory, descriptors or threads shows as. Needs the standard library alone; where
the system does not tell a limit, there is none.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sti.device.system_files import read_text, whole_number
from sti.errors import LimitError
from sti.units import format_size

MEMORY, FILES, THREADS = "memory", "files", "threads"

_FREE_FILES = 13
"""Descriptors that a first run takes at once, with the process that measures beside it."""
_BLAS, _MOST_BLAS_THREADS = "OPENBLAS_NUM_THREADS", 64
_DEPTH = 8
"""Causes of an error that are looked at."""
_WORDS = {
    MEMORY: (
        *("cannot allocate memory", "failed to map segment", "cannot map zero-fill", "bad_alloc"),
        *("bad allocation", "failed to allocate memory", "out of memory"),
    ),
    FILES: ("too many open files",),
    THREADS: ("can't start new thread", "pthread_create", "resource temporarily unavailable"),
}
"""In what Python, the C library and ONNX Runtime say where something is lacking."""


class Need(NamedTuple):
    """What loading a library takes, in bytes, as measured and rounded up."""

    name: str
    space_bytes: int
    data_bytes: int


NUMPY = Need("NumPy", 90_000_000, 50_000_000)
_BLAS_THREAD = Need("a thread of OpenBLAS", 45_000_000, 45_000_000)
ONNX_RUNTIME = Need("ONNX Runtime", 50_000_000, 15_000_000)
SESSION = Need("a session of ONNX Runtime", 40_000_000, 20_000_000)
"""With its threads. Where they cannot be had, ONNX Runtime may end the process (1.32 does)."""


class _Limit(NamedTuple):
    """A limit on memory."""

    words: str
    option: str
    most_bytes: int
    taken_bytes: int


def check_start(*, many_blas_threads: bool = False) -> None:
    """Refuse to go on where NumPy could not be loaded, or too few descriptors are free.

    For programs, before NumPy is imported. Its OpenBLAS is kept to one thread unless the user has
    said how many: more take memory, and it ends the process where they cannot be had.

    Args:
        many_blas_threads: leave OpenBLAS its threads, where memory is not limited.

    Raises:
        LimitError: it is so; says what is needed.
    """
    _check_files()
    if "numpy" not in sys.modules and (not many_blas_threads or _memory_limits()):
        os.environ.setdefault(_BLAS, "1")
    check_numpy()


def check_numpy() -> None:
    """Refuse to load NumPy where its OpenBLAS would end the process, as it does without memory.

    Where no thread can be started OpenBLAS is told to start none, for it would end the process too.

    Raises:
        LimitError: it is so; says what is needed.
    """
    if "numpy" in sys.modules:
        return
    if _BLAS not in os.environ and not _can_start_thread():
        os.environ[_BLAS] = "1"
    limited = _memory_limits()
    if limited:
        told = whole_number(os.environ.get(_BLAS, "").strip()) or os.cpu_count() or 1
        more = min(told, _MOST_BLAS_THREADS) - 1
        need = Need(
            NUMPY.name,
            NUMPY.space_bytes + more * _BLAS_THREAD.space_bytes,
            NUMPY.data_bytes + more * _BLAS_THREAD.data_bytes,
        )
        _check_memory(limited, need)


def _can_start_thread() -> bool:
    thread = threading.Thread(target=int, name="sti-thread-check", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def check_room(need: Need) -> None:
    """Refuse to begin what takes more memory than this process may.

    Raises:
        LimitError: it is so; says what is needed.
    """
    _check_memory(_memory_limits(), need)


def limit_error(error: BaseException) -> LimitError | None:
    """The limit that an error comes of, as one of its causes says; None where it does not.

    Lacking memory comes of a limit only where there is one: it may be short without.
    """
    for each in _causes(error):
        if isinstance(each, LimitError):
            return each
        lacking = _lacking(each)
        if lacking == FILES:
            return LimitError(f"too many open files: {_files_told()}", limit=FILES)
        limited = [] if lacking is None else _memory_limits()
        if limited:  # threads that cannot be started lack memory as well
            told = "; ".join(map(_told, limited))
            return LimitError(f"out of memory: {told}; raise the limit", limit=MEMORY)
        if lacking == THREADS:
            return LimitError(
                "no thread or process can be started: the system allows no more of them; raise the "
                "limit (ulimit -u, or that of the container), or end some",
                limit=THREADS,
            )
    return None


def _lacking(error: BaseException) -> str | None:
    """Which limit an error shows."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError):
        kinds = {errno.ENOMEM: MEMORY, errno.EMFILE: FILES, errno.ENFILE: FILES}
        return kinds.get(error.errno or 0)
    if isinstance(error, ImportError | RuntimeError) or type(error).__module__ != "builtins":
        text = str(error).lower()
        for kind, words in _WORDS.items():
            if any(word in text for word in words):
                return kind
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it came of."""
    each: BaseException | None = error
    for _ in range(_DEPTH):
        if each is None:
            return
        yield each
        each = each.__cause__ or each.__context__


def _memory_limits() -> list[_Limit]:
    """Limits on memory that are set."""
    try:
        import resource
    except ImportError:
        return []
    found: list[_Limit] = []
    for name, said, option, place in (
        ("RLIMIT_AS", "address space", "-v", 0),
        ("RLIMIT_DATA", "data", "-d", 5),
    ):
        with suppress(AttributeError, OSError, ValueError):
            most = resource.getrlimit(getattr(resource, name))[0]
            if 0 <= most != resource.RLIM_INFINITY:
                words = (read_text(Path("/proc/self/statm")) or "").split()
                pages = whole_number(words[place]) if len(words) > place else None
                found.append(_Limit(said, option, most, (pages or 0) * resource.getpagesize()))
    return found


def _check_memory(limited: list[_Limit], need: Need) -> None:
    for item in limited:
        size = need.space_bytes if item.option == "-v" else need.data_bytes
        if item.most_bytes - item.taken_bytes < size:
            raise LimitError(
                f"out of memory: {need.name} takes about {format_size(size)}, and {_told(item)}; "
                "raise the limit",
                limit=MEMORY,
            )


def _told(item: _Limit) -> str:
    return (
        f"the {item.words} of this process is limited to {format_size(item.most_bytes)} "
        f"(ulimit {item.option}), of which {format_size(item.taken_bytes)} are taken"
    )


def _check_files() -> None:
    """By opening some: files that were open before count, and so do those of the whole system."""
    opened: list[int] = []
    failure = None
    try:
        for _ in range(_FREE_FILES):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        failure = error
    finally:
        for descriptor in opened:
            os.close(descriptor)
    if failure is not None and failure.errno in (errno.EMFILE, errno.ENFILE):
        raise LimitError(
            f"too many open files: {_FREE_FILES} more are needed, {len(opened)} can be had: "
            f"{_files_told()}",
            limit=FILES,
        ) from failure


def _files_told() -> str:
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"this process may have {most} (ulimit -n); raise the limit, or close some"
    return "raise the limit, or close some"
