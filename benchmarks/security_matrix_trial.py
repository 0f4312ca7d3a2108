"""Trying the cells of the fault matrix, one after the other, in one process.

In: cells. Out: how each ended, and what was not as it has to be. Uses a tiny pack of random weights
and a made-up profile, so that cells take milliseconds and plans are the same everywhere. A cell
that hangs hangs the process: ``security_matrix`` ends it.
"""

from __future__ import annotations

import gc
import os
import shutil
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
    ENDS,
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
    SAME,
    Cell,
)
from benchmarks.security_matrix_faults import SLOW_S, OwnError, Places, Source, fault_of
from benchmarks.security_matrix_traces import Before
from sti.arrays import Float32Array
from sti.device.lanes import PIPELINED, SEQUENTIAL, shared
from sti.engine.results import Result
from sti.testing.faults import Fault
from sti.testing.faulty_file import faulty_file
from tests.support.packs import PROFILE, TEXTS, tiny_pack

FIDELITY, PRELOAD, MEMORY, THREADS = 8, "8KB", "300MB", 2
READ_TIMEOUT_S = 0.3
"""Of engines under test."""
IN_TIME_S = 5.0
"""A cell takes milliseconds; on a busy machine more."""
BUILT_IN_TIME_S = 40.0
"""One in which a graph is built or opened."""
PATIENCE_S, BUILDING_S = 20.0, 1.0
NOT_AS_BEFORE, LEFT, NOT_TOLD = "not as before", "left behind", "not as specified"
NOT_MET = "the fault met nothing"
"""What can be wrong with a cell that ended as expected."""

_MANY = (*TEXTS * 9, TEXTS[0])
"""More than one batch."""


class Ended(NamedTuple):
    """A cell that was tried."""

    cell: Cell
    found: str
    wrong: str
    """Why that is not as specified; "" where it is."""
    took_s: float


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
            token = int(engine.tokenize(TEXTS)[0].ids[0])
            self._expected = {
                texts: _answer(list(engine.stream(texts))) for texts in (TEXTS, _MANY)
            }
        self._places = Places.of(self._path, token)
        gc.collect()
        gc.freeze()  # what cells leave is looked for often, and not to be found among all of this

    def try_cell(self, cell: Cell) -> Ended:
        """Try one cell. Raises nothing of what is under test."""
        before, begun = Before(), perf_counter()
        try:
            found, wrong = self._try(cell)
        except BaseException as error:  # nothing of a cell may end the others
            found, wrong = f"{type(error).__name__}: {error}", NOT_AS_BEFORE
        took_s = perf_counter() - begun
        if not wrong and cell.expected != found:
            wrong = NOT_TOLD
        if not wrong and took_s > (BUILT_IN_TIME_S if cell.lanes == GRAPH else IN_TIME_S):
            wrong = "not in time"
        left = before.left()
        if not wrong and left:
            wrong = f"{LEFT}: {left}"
        return Ended(cell, found, wrong, took_s)

    def _try(self, cell: Cell) -> tuple[str, str]:
        if cell.stage in OPENING:
            return self._opening(cell)
        if cell.stage == "graph building":
            return self._building(cell)
        with ExitStack() as stack:
            source = Source(cell.door, self._path, stack)
            if cell.stage == "preload fill":
                source.inject(self._fault(cell))
            if cell.stage == "closing":
                source.inject(self._fault(cell))
                engine = self._open(cell, source)
                engine.close()
                return CLOSED, ""
            engine = stack.enter_context(self._open(cell, source))
            return self._running(cell, source, engine)

    def _running(self, cell: Cell, source: Source, engine: sti.Engine) -> tuple[str, str]:
        texts = _MANY if cell.lanes == "batches" else TEXTS
        never = cell.kind == NEVER and cell.stage in FILLING
        engine.preloaded(0.0 if never else PATIENCE_S)
        if cell.stage == "refill":
            engine.release()
            source.inject(self._fault(cell, at=1))  # the run reads it first
            engine.run(TEXTS)
            engine.preloaded(0.0 if never else PATIENCE_S)
        elif cell.stage == "between runs":
            if self._changes_file(cell):
                return self._changed(cell, engine, texts)
            source.inject(self._fault(cell))
            sleep(SLOW_S)
            engine.health()
            source.end()
        elif cell.stage not in FILLING:
            source.inject(self._fault(cell))
        found = self._outcome(cell, lambda: self._run(engine, cell, texts), texts)
        source.end()
        if cell.stage != "between runs" and not source.injected:
            return found, NOT_MET
        return found, self._usable(engine, cell, texts)

    def _usable(self, engine: sti.Engine, cell: Cell, texts: Sequence[str]) -> str:
        """What is wrong with an engine after a fault that is over."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                found = _answer(self._run(engine, cell, texts))
                if not np.array_equal(found, self._expected[tuple(texts)]):
                    return NOT_AS_BEFORE
            building = cell.stage == "graph building" and cell.kind == NEVER
            if not building and not engine.preloaded(PATIENCE_S):
                return f"{NOT_AS_BEFORE}: nothing is held any more"
        return ""

    def _opening(self, cell: Cell) -> tuple[str, str]:
        with faulty_file(self._path, self._fault(cell)) as faulty:
            found = self._outcome(cell, lambda: self._opened_once(cell), TEXTS)
        if not faulty.injected:
            return found, NOT_MET
        expected = self._expected[TEXTS]
        return found, "" if np.array_equal(_answer(self._opened_once(cell)), expected) else LEFT

    def _opened_once(self, cell: Cell) -> list[Result]:
        with ExitStack() as stack:
            engine = self._open(cell, Source(FILE, self._path, stack))
            return self._run(stack.enter_context(engine), cell, TEXTS)

    def _building(self, cell: Cell) -> tuple[str, str]:
        """While another process builds the graph, runs are streamed; it may fail."""
        shutil.rmtree(self._cache, ignore_errors=True)
        fault = self._fault(cell)
        with ExitStack() as stack:
            stack.enter_context(faulty_building(self._place, self._path, fault))
            engine = stack.enter_context(self._open(cell, Source(FILE, self._path, stack)))
            engine.preloaded(BUILDING_S if cell.kind == NEVER else PATIENCE_S)
            found = self._outcome(cell, lambda: self._run(engine, cell, TEXTS), TEXTS)
            if engine.mapped_bytes and ENDS[cell.kind].groups != SAME:
                return found, NOT_MET  # a graph came of it
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

    def _open(self, cell: Cell, source: Source) -> sti.Engine:
        options: dict[str, Any] = {
            "threads": THREADS,
            "profile": PROFILE,
            "strict": "strict" in cell.kind,
            "notify": str,
            "read_timeout": f"{READ_TIMEOUT_S}s",
        }
        if cell.lanes == GRAPH:
            engine = sti.Engine.open(self._path, fidelity=FIDELITY, memory=MEMORY, **options)
            if cell.stage != "graph building" and not engine.preloaded(PATIENCE_S):
                raise RuntimeError("there is no graph")
            return engine
        lanes = {"pipelined": PIPELINED, "sequential": SEQUENTIAL}.get(cell.lanes, shared(THREADS))
        plan = replace(self._unheld if cell.stage in GROUPS else self._plan, threads=lanes)
        return sti.Engine.open(self._path, plan=plan, storage=source.reader, **options)

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
            except (OwnError, MemoryError, KeyboardInterrupt) as error:
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

    def _fault(self, cell: Cell, *, at: int = 0) -> Fault:
        return fault_of(cell, self._places, self._other, at=at)


def _kind_of(error: sti.StiError, path: Path, took_s: float, *, never: bool) -> str:
    said = str(error)
    if str(path) not in said or "\n" in said or ";" not in said:
        return f"names no file or remedy: {said}"
    if not never:
        return ERROR
    return LATE if READ_TIMEOUT_S <= took_s < IN_TIME_S else f"after {took_s:.2f} s: {said}"


def _answer(results: Sequence[Result]) -> Float32Array:
    return np.concatenate([result.logits for result in results])
