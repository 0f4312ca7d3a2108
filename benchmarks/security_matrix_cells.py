"""The fault matrix as data: what goes wrong, when, on which lanes, and how that has to end.

In: nothing. Out: its cells. Whatever happens, the engine is usable afterwards and answers as
before, to the bit; nothing of it is left when it is closed. Knows nothing of how cells are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

SAME = "same answer"
"""Of the sound pack, to the bit, without a word about quality."""
ERROR = "typed error"
"""One line that names the file and a remedy."""
LATE = "typed error in time"
"""The same within the time that reads are given."""
RAISED = "as raised"
"""What the reader raised, not an answer and not another error."""
LESS = "told downgrade"
"""An answer at the precision below, with a warning, that the plan of the result gives again."""

CLOSED = "closes"
"""In time, while the preload buffer was to be filled."""

OPENING = ("header", "residents")
FILLING = ("preload fill", "refill")
GROUPS = ("first group", "middle group", "last group")
STAGES = (*OPENING, *FILLING, "token rows", *GROUPS, "between runs", "graph building", "closing")

STREAMED = ("sequential", "pipelined", "shared", "batches")
GRAPH = "graph"
LANES = (*STREAMED, GRAPH)
"""How a run is executed. ``batches`` are those of ``Engine.stream``, on shared threads."""

READER, FILE = "reader", "file"
DOORS = (READER, FILE)
"""Where faults come in: a reader given to the engine, or the system's calls for the pack's file."""


class Ends(NamedTuple):
    """How one kind of fault ends, by when it happens; "" where there is no such cell."""

    opening: str
    filling: str
    rows: str
    groups: str
    between: str = SAME
    building: str = SAME
    closing: str = CLOSED


_REFUSED = Ends(ERROR, SAME, ERROR, ERROR)

ENDS: Mapping[str, Ends] = {
    "EIO": _REFUSED,
    "ENOMEM": _REFUSED,
    "EAGAIN": _REFUSED,
    "EINTR": _REFUSED,
    "ESTALE": _REFUSED,
    "ENODEV": _REFUSED,
    "part arrives": Ends(SAME, SAME, SAME, SAME),
    "ends early": _REFUSED,
    "truncated": _REFUSED._replace(filling=ERROR, between=ERROR),
    "replaced": _REFUSED._replace(rows="", filling=ERROR, between=ERROR),
    "bit flipped": Ends(ERROR, LESS, ERROR, LESS, between=ERROR),
    "bit flipped, strict": Ends("", ERROR, ERROR, ERROR),
    "zeroed": _REFUSED._replace(filling=ERROR, between=ERROR),
    "exception": Ends(RAISED, SAME, RAISED, RAISED),
    "MemoryError": Ends(RAISED, SAME, RAISED, RAISED),
    "interrupt": Ends(RAISED, SAME, RAISED, RAISED),
    "slow": Ends(SAME, SAME, SAME, SAME),
    "stalls": Ends(SAME, SAME, SAME, SAME),
    "never returns": Ends(LATE, LATE, LATE, LATE),
}
"""Of each kind of fault.

``part arrives`` is a read of which the system returns the first half; ``ends early`` one of which
nothing comes any more. A bit is flipped in the highest plane of a group, or in the row of a token,
or anywhere in what is read while opening. Rows of another pack, in the places of this one's, carry
checksums of their own: it is seen that the file is another one, but not that such rows are. Between
runs, the file itself is truncated, replaced or changed; everything else is injected while no run is
under way.
"""

NEVER = "never returns"
_OF_FILES = ("part arrives",)
"""Kinds that are the system's, not a reader's."""


class Cell(NamedTuple):
    """One case."""

    kind: str
    stage: str
    lanes: str
    door: str

    @property
    def expected(self) -> str:
        """How it has to end; "" where there is no such case."""
        ends = ENDS[self.kind]
        if self.stage in OPENING:
            return ends.opening
        if self.stage in FILLING:
            return ends.filling
        if self.stage in GROUPS:
            return ends.groups
        names = {"token rows": ends.rows, "between runs": ends.between}
        return (names | {"graph building": ends.building, "closing": ends.closing})[self.stage]


def cells() -> Iterator[Cell]:
    """All cells, cheap ones first."""
    for stage in STAGES:
        for lanes in LANES:
            for door in DOORS:
                for kind in ENDS:
                    cell = Cell(kind, stage, lanes, door)
                    if _is_one(cell) and cell.expected:
                        yield cell


def _is_one(cell: Cell) -> bool:
    """Whether there is such a case."""
    if cell.door == READER and (cell.kind in _OF_FILES or cell.stage in OPENING):
        return False
    if cell.stage in OPENING:
        return cell.lanes == "sequential"  # no lane is at work yet
    if cell.lanes == GRAPH:  # reads rows alone; engines with a reader of their own have none
        return cell.door == FILE and cell.stage in ("token rows", "between runs", "graph building")
    return cell.stage != "graph building"
