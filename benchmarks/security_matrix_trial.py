"""Trying the cells of the fault matrix, one after the other, in one process.

In: cells. Out: how each ended, and what was not as it has to be. Uses a tiny pack of random weights
and a made-up profile, so that cells take milliseconds and plans are the same everywhere. A cell
that hangs hangs the process: ``security_matrix`` ends it.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np

import sti
from benchmarks.security_matrix_building import faulty_building
from benchmarks.security_matrix_cells import (
    CLOSED,
    ERROR,
    FILE,
    FILLING,
    GRAPH,
    GROUPS,
    LATE,
    LESS,
    NEVER,
    OPENING,
    RAISED,
    READER,
    SAME,
    Cell,
)
from sti.arrays import Float32Array
from sti.device.lanes import PIPELINED, SEQUENTIAL, shared
from sti.engine.results import Result
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.testing.faults import (
    Call,
    EndsEarly,
    Fails,
    Fault,
    Flipped,
    Raises,
    Replaced,
    Stalls,
    Truncated,
    Zeroed,
)
from sti.testing.faulty_file import faulty_file
from sti.testing.faulty_reader import FaultyReader
from tests.support.packs import PROFILE, TEXTS, tiny_pack

FIDELITY, PRELOAD, MEMORY, THREADS = 8, "8KB", "300MB", 2
READ_TIMEOUT_S = 0.3
"""Of engines under test."""
IN_TIME_S = 5.0
"""A cell takes milliseconds; on a busy machine more."""
BUILT_IN_TIME_S = 40.0
"""One in which a graph is built or opened."""
STALLED_S, SLOW_S, PATIENCE_S, BUILDING_S = 0.05, 0.002, 20.0, 1.0
NOT_AS_BEFORE, LEFT, NOT_TOLD = "not as before", "left behind", "not as specified"
"""What can be wrong with a cell that ended as expected."""

_MANY = (*TEXTS * 9, TEXTS[0])
"""More than one batch."""


class Injected(Exception):
    """An error of the reader's own."""


class Ended(NamedTuple):
    """A cell that was tried."""

    cell: Cell
    found: str
    wrong: str
    """Why that is not as specified; "" where it is."""
    took_s: float


def can_time_out() -> bool:
    """Whether this engine gives reads up that never return."""
    return "read_timeout" in (sti.Engine.open.__kwdefaults__ or {})


class _Places(NamedTuple):
    """Where the parts of a pack lie."""

    header: ByteRange
    residents: ByteRange
    rows: ByteRange
    row_bytes: int
    groups: tuple[ByteRange, ...]
    planes: tuple[int, ...]
    """Of each group a byte of its highest plane."""
    used: int
    """A token that every text has."""


class Trial:
    """Sound answers, and copies of a pack to do harm to.

    Args:
        place: an empty directory.
        cache: where engines keep graphs; those are removed.
    """

    def __init__(self, place: Path, cache: Path) -> None:
        self._sound, self._place = tiny_pack("classification"), place
        self._cache = cache
        self._path = place / "pack.sti.safetensors"
        self._other = tiny_pack("classification", seed=1).read_bytes()
        self._data = self._sound.read_bytes()
        self._path.write_bytes(self._data)
        with sti.Engine.open(
            self._path, fidelity=FIDELITY, preload=PRELOAD, threads=THREADS, profile=PROFILE
        ) as engine:
            self._plan = engine.plan_for(tokens=8, batch=len(TEXTS))
            engine.set_target(fidelity=FIDELITY)
            self._unheld = engine.plan_for(tokens=8, batch=len(TEXTS))
            used = int(engine.tokenize(TEXTS)[0].ids[0])
            self._expected = {
                texts: _answer(list(engine.stream(texts))) for texts in (TEXTS, _MANY)
            }
        self._places = _places(self._path, self._plan, used)
        gc.collect()
        gc.freeze()  # what cells leave is looked for often, and not to be found among all of this

    def try_cell(self, cell: Cell) -> Ended:
        """Try one cell. Raises nothing of what is under test."""
        gc.collect()
        threads, descriptors = set(threading.enumerate()), _descriptors()
        begun = perf_counter()
        try:
            found, wrong = self._try(cell)
        except BaseException as error:  # nothing of a cell may end the others
            found, wrong = f"{type(error).__name__}: {error}", NOT_AS_BEFORE
        took_s = perf_counter() - begun
        if not wrong and cell.expected != found:
            wrong = NOT_TOLD
        if not wrong and took_s > (BUILT_IN_TIME_S if cell.lanes == GRAPH else IN_TIME_S):
            wrong = "not in time"
        left = _left(threads, descriptors)
        if not wrong and left:
            wrong = f"{LEFT}: {left}"
        return Ended(cell, found, wrong, took_s)

    def _try(self, cell: Cell) -> tuple[str, str]:
        if cell.stage in OPENING:
            return self._opening(cell)
        if cell.stage == "graph building":
            return self._building(cell)
        with ExitStack() as stack:
            sources = _Source(cell.door, self._path, stack)
            if cell.stage == "preload fill":
                sources.inject(self._fault(cell, at=0))
            if cell.stage == "closing":
                sources.inject(self._fault(cell, at=0))
                engine = self._open(cell, sources)
                engine.close()
                sources.release()
                return CLOSED, ""
            engine = stack.enter_context(self._open(cell, sources))
            return self._running(cell, sources, engine)

    def _running(self, cell: Cell, sources: _Source, engine: sti.Engine) -> tuple[str, str]:
        texts = _MANY if cell.lanes == "batches" else TEXTS
        never = cell.kind == NEVER and cell.stage in FILLING
        engine.preloaded(0.0 if never else PATIENCE_S)
        if cell.stage == "refill":
            engine.release()
            sources.inject(self._fault(cell, at=1))  # the run reads it first
            engine.run(TEXTS)
            engine.preloaded(0.0 if never else PATIENCE_S)
        elif cell.stage == "between runs":
            if self._changes_file(cell):
                return self._changed(cell, engine, texts)
            sources.inject(self._fault(cell, at=0))
            sleep(SLOW_S)
            engine.health()
            sources.inject()
        elif cell.stage not in FILLING:
            sources.inject(self._fault(cell, at=0))
        found = self._outcome(cell, lambda: self._run(engine, cell, texts), texts)
        sources.inject()
        sources.release()
        return found, self._usable(engine, cell, texts)

    def _usable(self, engine: sti.Engine, cell: Cell, texts: Sequence[str]) -> str:
        """What is wrong with an engine after a fault that is over."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                found = _answer(self._run(engine, cell, texts))
                if not np.array_equal(found, self._expected[tuple(texts)]):
                    return NOT_AS_BEFORE
            if not engine.preloaded(PATIENCE_S):
                return f"{NOT_AS_BEFORE}: nothing is held any more"
        return ""

    def _opening(self, cell: Cell) -> tuple[str, str]:
        with faulty_file(self._path, self._fault(cell, at=0)):
            found = self._outcome(cell, lambda: self._opened_once(cell), TEXTS)
        expected = self._expected[TEXTS]
        return found, "" if np.array_equal(_answer(self._opened_once(cell)), expected) else LEFT

    def _opened_once(self, cell: Cell) -> list[Result]:
        with ExitStack() as stack:
            engine = self._open(cell, _Source(FILE, self._path, stack))
            return self._run(stack.enter_context(engine), cell, TEXTS)

    def _building(self, cell: Cell) -> tuple[str, str]:
        """While another process builds the graph, runs are streamed; it may fail."""
        shutil.rmtree(self._cache, ignore_errors=True)
        fault = self._fault(cell, at=0)
        with ExitStack() as stack:
            stack.enter_context(faulty_building(self._place, self._path, fault))
            engine = stack.enter_context(self._open(cell, _Source(FILE, self._path, stack)))
            engine.preloaded(BUILDING_S if cell.kind == NEVER else PATIENCE_S)
            found = self._outcome(cell, lambda: self._run(engine, cell, TEXTS), TEXTS)
            return found, self._usable(engine, cell, TEXTS)

    def _changes_file(self, cell: Cell) -> bool:
        return cell.kind in ("truncated", "replaced", "bit flipped", "zeroed")

    def _changed(self, cell: Cell, engine: sti.Engine, texts: Sequence[str]) -> tuple[str, str]:
        """The file itself is changed, and made good again with the time that it had."""
        before = self._path.stat()
        at = self._places.planes[0]
        try:
            with self._path.open("r+b") as file:
                if cell.kind == "truncated":
                    file.truncate(at)
                elif cell.kind == "replaced":
                    file.write(self._other)
                else:
                    file.seek(at)
                    file.write(bytes([self._data[at] ^ 1] if "bit" in cell.kind else [0] * 99))
            found = self._outcome(cell, lambda: self._run(engine, cell, texts), texts)
        finally:
            with self._path.open("r+b") as file:
                file.write(self._data)
            os.utime(self._path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return found, self._usable(engine, cell, texts)

    def _open(self, cell: Cell, sources: _Source) -> sti.Engine:
        options: dict[str, Any] = {
            "threads": THREADS,
            "profile": PROFILE,
            "strict": "strict" in cell.kind,
            "notify": str,
        }
        if can_time_out():
            options["read_timeout"] = f"{READ_TIMEOUT_S}s"
        if cell.lanes == GRAPH:
            engine = sti.Engine.open(self._path, fidelity=FIDELITY, memory=MEMORY, **options)
            if cell.stage != "graph building" and not engine.preloaded(PATIENCE_S):
                raise RuntimeError("there is no graph")
            return engine
        lanes = {"pipelined": PIPELINED, "sequential": SEQUENTIAL}.get(cell.lanes, shared(THREADS))
        plan = replace(self._unheld if cell.stage in GROUPS else self._plan, threads=lanes)
        return sti.Engine.open(self._path, plan=plan, storage=sources.reader(), **options)

    def _run(self, engine: sti.Engine, cell: Cell, texts: Sequence[str]) -> list[Result]:
        if cell.lanes == "batches":
            return list(engine.stream(texts))
        return [engine.run(texts)]

    def _outcome(self, cell: Cell, run: Callable[[], list[Result]], texts: Sequence[str]) -> str:
        begun = perf_counter()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                results = run()
            except sti.StiError as error:
                took_s = perf_counter() - begun
                return _kind_of(error, self._path, took_s, never=cell.kind == NEVER)
            except (Injected, MemoryError, KeyboardInterrupt) as error:
                return RAISED if "injected" in str(error) else f"{error!r}"
        found = _answer(results)
        if any(result.downgrades for result in results):
            if not any(issubclass(item.category, sti.StiWarning) for item in said):
                return "not told"
            return LESS if self._again(results) else "not replayable"
        return SAME if np.array_equal(found, self._expected[tuple(texts)]) else "another answer"

    def _again(self, results: Sequence[Result]) -> bool:
        """Whether the sound pack gives the same answers under the plans of results."""
        for result in results:
            with sti.Engine.open(
                self._sound, plan=result.plan, threads=THREADS, profile=PROFILE
            ) as engine:
                if not np.array_equal(_answer([engine.run(result.texts)]), _answer([result])):
                    return False
        return True

    def _fault(self, cell: Cell, *, at: int) -> Fault:
        """What is injected in a cell."""
        place, damage = self._target(cell)
        effect = _effect(cell.kind, place, damage, self._other)
        lasts = cell.kind in ("slow", "truncated") or cell.stage in (*GROUPS, "token rows")
        lasts = lasts and cell.kind not in (NEVER, "stalls")
        # What is read of the header goes on beyond it.
        first = None if cell.stage == "header" else _From(self._places.residents.offset)
        return Fault(effect=effect, at=at, times=None if lasts else 1, place=place, when=first)

    def _target(self, cell: Cell) -> tuple[ByteRange, int]:
        """The bytes that a stage reads, and one of them to be damaged."""
        places = self._places
        if cell.stage == "header":
            return places.header, places.header.length // 2
        if cell.stage == "residents":
            return places.residents, places.residents.offset + places.residents.length // 2
        if cell.stage == "token rows":
            row = places.rows.offset + places.used * places.row_bytes
            return ByteRange(row, places.row_bytes), row + 3
        which = {"middle group": len(places.groups) // 2, "last group": -1}.get(cell.stage, 0)
        return places.groups[which], places.planes[which]


class _From(NamedTuple):
    """Lets calls through that begin behind a place."""

    offset: int

    def __call__(self, call: Call) -> bool:
        return call.place.offset >= self.offset


class _Source:
    """Where an engine under test reads from, and the faults of that."""

    def __init__(self, door: str, path: Path, stack: ExitStack) -> None:
        self._faulty: Any
        if door == READER:
            self._faulty = FaultyReader(FileReader(path), name=str(path))
        else:
            self._faulty = stack.enter_context(faulty_file(path))
        self.inject, self.release = self._faulty.inject, self._faulty.release

    def reader(self) -> FaultyReader | None:
        """The reader to give to the engine; None for that of its own."""
        return self._faulty if isinstance(self._faulty, FaultyReader) else None


def _effect(kind: str, place: ByteRange, at: int, other: bytes) -> Any:
    if kind.startswith("bit flipped"):
        return Flipped(at)
    effects = {
        "part arrives": EndsEarly(),
        "ends early": EndsEarly(0.0),
        "truncated": Truncated(place.offset + 1),
        "replaced": Replaced(other),
        "zeroed": Zeroed(place),
        "exception": Raises(Injected),
        "MemoryError": Raises(MemoryError),
        "interrupt": Raises(KeyboardInterrupt),
        "slow": Stalls(SLOW_S),
        "stalls": Stalls(STALLED_S),
        NEVER: Stalls(),
    }
    return effects.get(kind) or Fails(getattr(errno, kind))


def _kind_of(error: sti.StiError, path: Path, took_s: float, *, never: bool) -> str:
    said = str(error)
    if str(path) not in said or "\n" in said or ";" not in said:
        return f"names no file or remedy: {said}"
    if not never:
        return ERROR
    return LATE if READ_TIMEOUT_S <= took_s < IN_TIME_S else f"after {took_s:.2f} s: {said}"


def _answer(results: Sequence[Result]) -> Float32Array:
    return np.concatenate([result.logits for result in results])


def _places(path: Path, plan: Plan, used: int) -> _Places:
    with PackReader.open(path) as reader:
        words, rows_at = reader.manifest.embeddings, reader.embeddings_offset
        start = rows_at - reader.manifest.resident.length
        groups, planes = [], []
        for group in reader.manifest.groups:
            at = reader.group_offset(group)
            groups.append(ByteRange(at, group.length))
            *below, highest = group.planes
            first = at + sum(group.outlier_bytes)
            first += sum(group.slices * plane.shard_bytes for plane in below)
            planes.append(first + highest.shard_bytes // 2)
        assert len(plan.steps) == len(groups), "the plan uses all of the pack"
        return _Places(
            ByteRange(0, start),
            ByteRange(start, rows_at - start),
            ByteRange(rows_at, words.rows * words.row_bytes),
            words.row_bytes,
            tuple(groups),
            tuple(planes),
            used,
        )


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the listing itself
    return found


def _left(threads: set[threading.Thread], descriptors: dict[str, str]) -> str:
    """Threads and descriptors of a cell that are still there after a while."""
    end, left = perf_counter() + 2.0, ""
    while perf_counter() < end:
        gc.collect()
        names = [item.name for item in threading.enumerate() if item not in threads]
        names += [name for number, name in _descriptors().items() if number not in descriptors]
        left = ", ".join(names)
        if not left:
            break
        sleep(0.01)
    return left
