"""What is injected in each cell of the fault matrix, and where.

In: a pack, and a cell. Out: the fault, and what an engine under test reads from. Knows nothing of
how cells end.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.security_matrix_cells import GROUPS, NEVER, READER, Cell
from sti.pack.pack_reader import PackReader
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from sti.testing.faults import (
    Call,
    Effect,
    EndsEarly,
    Fails,
    Fault,
    Flipped,
    Injected,
    Raises,
    Replaced,
    Stalls,
    Truncated,
    Zeroed,
)
from sti.testing.faulty_file import faulty_file
from sti.testing.faulty_reader import FaultyReader

STALLED_S, SLOW_S = 0.05, 0.002


class OwnError(Exception):
    """An error of the reader's own."""


class Places(NamedTuple):
    """Where the parts of a pack lie."""

    header: ByteRange
    residents: ByteRange
    row: ByteRange
    """Of a token that every text has."""
    groups: tuple[ByteRange, ...]
    planes: tuple[int, ...]
    """Of each group a byte of its highest plane."""

    @classmethod
    def of(cls, path: Path, token: int) -> Places:
        """Those of a pack, with the row of a token."""
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
        return cls(
            ByteRange(0, start),
            ByteRange(start, rows_at - start),
            ByteRange(rows_at + token * words.row_bytes, words.row_bytes),
            tuple(groups),
            tuple(planes),
        )

    def of_stage(self, stage: str) -> tuple[ByteRange, int]:
        """The bytes that a stage reads, and one of them to be damaged."""
        if stage == "header":
            return self.header, self.header.length // 2
        if stage == "residents":
            return self.residents, self.residents.offset + self.residents.length // 2
        if stage == "token rows":
            return self.row, self.row.offset + 3
        which = {"middle group": len(self.groups) // 2, "last group": -1}.get(stage, 0)
        return self.groups[which], self.planes[which]


def fault_of(cell: Cell, places: Places, other: bytes, *, at: int = 0) -> Fault:
    """What is injected in a cell.

    Args:
        other: another pack of the same shape.
        at: the first call for the stage's bytes that is hit.
    """
    place, damaged = places.of_stage(cell.stage)
    lasts = cell.kind in ("slow", "truncated") or cell.stage in (*GROUPS, "token rows")
    lasts = lasts and cell.kind not in (NEVER, "stalls")
    # What is read of the header goes on beyond it.
    behind = None if cell.stage == "header" else _From(places.residents.offset)
    effect = _effect(cell.kind, place, damaged, other)
    return Fault(effect=effect, at=at, times=None if lasts else 1, place=place, when=behind)


class _From(NamedTuple):
    """Lets calls through that begin at a place or behind it."""

    offset: int

    def __call__(self, call: Call) -> bool:
        return call.place.offset >= self.offset


def _effect(kind: str, place: ByteRange, at: int, other: bytes) -> Effect:
    if kind.startswith("bit flipped"):
        return Flipped(at)
    effects: dict[str, Effect] = {
        "part arrives": EndsEarly(),
        "ends early": EndsEarly(0.0),
        "truncated": Truncated(place.offset + 1),
        "replaced": Replaced(other),
        "zeroed": Zeroed(place),
        "exception": Raises(OwnError),
        "MemoryError": Raises(MemoryError),
        "interrupt": Raises(KeyboardInterrupt),
        "slow": Stalls(SLOW_S),
        "stalls": Stalls(STALLED_S),
        NEVER: Stalls(),
    }
    return effects.get(kind) or Fails(getattr(errno, kind))


class Source:
    """Where an engine under test reads from, and the faults of that.

    Args:
        stack: ends what this begins.
    """

    def __init__(self, door: str, path: Path, stack: ExitStack) -> None:
        self.reader: FaultyReader | None = None
        """To be given to the engine; None: it has its own."""
        if door == READER:
            self.reader = FaultyReader(FileReader(path), name=str(path))
        self._faulty = self.reader or stack.enter_context(faulty_file(path))
        stack.callback(self.end)

    def inject(self, fault: Fault) -> None:
        """Have a fault from now on."""
        self._faulty.inject(fault)

    def end(self) -> None:
        """Have none any more."""
        self._faulty.inject()
        self._faulty.release()

    @property
    def injected(self) -> tuple[Injected, ...]:
        """What was met."""
        return self._faulty.injected
