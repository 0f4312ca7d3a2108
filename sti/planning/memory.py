"""What runs of a plan take of memory, by part. Pure.

In: a manifest, a plan, how its texts are grouped, what opening took. Out: parts, in bytes of
anonymous memory beyond the imports. The sizes of buffers are exact. What ONNX Runtime takes for the
values inside a graph, and Python for its objects, was measured and is stated a little high
(docs/memory.md): a budget is to be kept, not met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil, log2, prod
from typing import NamedTuple

from sti.model.decoded_size import largest_group_bytes
from sti.model.group_layout import group_ranges
from sti.model.manifest import COLUMNS, BlockKind, Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.lane_threads import shares_of
from sti.planning.plan import Plan, PlanStep
from sti.storage.byte_ranges import HUGE_PAGE, ByteRange, cover, in_sectors

OPENED, RING, BUFFERS, STATES, VALUES, OBJECTS, HELD = (
    "opened: residents, sessions, tokenizer",
    "ring",
    "working buffers",
    "hidden states",
    "values inside a graph",
    "plans, bindings, threads",
    "held: compressed weights",
)
"""Names of the parts."""

_FLOAT = 4
_SCORES, _INNER = 2.7, 4
"""How often at once attention has its scores, and a block what its slices compute, as float32."""
_GRAPH_SCORES, _GRAPH_INNER = 2.1, 6.2
"""The same for a plan as one graph, of all slices, added up: the arena has memory for either.
1 to 20 % more than was measured with one to sixteen texts of 16 to 480 tokens.
"""
_SEVERAL = 1.15
"""Over what one text takes for each, where several are computed together: an arena that served
batches of other shapes before fits less well."""
_MERGED = 1.3
"""Over what each lane would take alone, where several share an arena in any order."""
_BINDING = 4600
_MOST_BINDINGS = 256
_STEP = 8_000
_THREAD = 90_000
_REST = 900_000
_HEAD = "head"
"""Unit of slices of blocks whose tokens attend to each other."""


class MemoryPart(NamedTuple):
    """One part of what an engine adds to the memory of its process."""

    name: str
    """What it is for, in a few words."""
    size: int
    """Bytes."""
    mapped: bool = False
    """Whether it is mapped from a file, so that the system can take it back and read it again."""


def total_size(parts: Sequence[MemoryPart]) -> int:
    """Bytes of all parts."""
    return sum(part.size for part in parts)


class PlanMemory:
    """What runs of a plan take, but for what is held between them. Immutable.

    Args:
        manifest: of the pack.
        plan: fits it.
        as_graph: it is run as one graph, without lanes.
    """

    def __init__(self, manifest: Manifest, plan: Plan, *, as_graph: bool = False) -> None:
        self._as_graph = as_graph
        self._hidden, self._threads = manifest.dimensions.hidden, plan.threads
        self._row_bytes = manifest.embeddings.row_bytes
        steps = Counter((step.layer, step.kind) for step in plan.steps)
        self._groups = max(steps.values())
        self._kinds = [_KindInUse.of(kind, plan) for kind in manifest.kinds]
        objects = MemoryPart(OBJECTS, _objects(plan, len(steps)))
        self._fixed: tuple[MemoryPart, ...] = (objects,)
        if not as_graph:
            self._fixed = (
                MemoryPart(RING, ring_size(plan, _slot_sizes(manifest, plan))),
                MemoryPart(BUFFERS, plan.threads.buffers * largest_group_bytes(manifest)),
                objects,
            )

    def parts(self, groups: Sequence[Workload]) -> tuple[MemoryPart, ...]:
        """By part.

        Args:
            groups: sentences of the batch that are computed together, and their tokens with
                padding.
        """
        values = max(map(self._graph_values if self._as_graph else self._values, groups))
        return (
            *self._fixed,
            MemoryPart(STATES, self._states(groups)),
            MemoryPart(VALUES, ceil(values)),
        )

    def _values(self, group: Workload) -> float:
        """Bytes that ONNX Runtime's arena takes for the values inside the graphs of steps."""
        return max(kind.values(group) for kind in self._kinds)

    def _graph_values(self, group: Workload) -> float:
        """The same for those inside the graph of the plan."""
        batch, tokens = group
        inner = max(kind.every for kind in self._kinds)
        heads = max((kind.every_slice for kind in self._kinds if kind.attends), default=0)
        scores = _GRAPH_SCORES * heads * tokens
        return _FLOAT * batch * tokens * (_GRAPH_INNER * inner + scores)

    def _states(self, groups: Sequence[Workload]) -> int:
        """Token embeddings, hidden states and partial sums of all groups of sentences.

        Token embeddings lie in one memory that is as large as the largest group takes; the first
        group has its first partial sum there. Hidden states are float32, and uint8 with a scale for
        each token; every array has sectors of its own. A row is read for each token, if all differ.
        """
        partials = 0 if self._as_graph else 1
        if partials and self._groups > 1:
            partials = min(self._groups, ceil(log2(self._groups)) + self._threads.compute)
        tokens = [group.batch * group.tokens for group in groups]
        found = self._row_bytes * sum(tokens)
        for count in tokens:
            hidden = count * self._hidden
            floats = (1 + partials) * in_sectors(_FLOAT * hidden)
            found += floats + in_sectors(hidden) + in_sectors(_FLOAT * count)
        shared, first = (_FLOAT * count * self._hidden for count in (max(tokens), tokens[0]))
        return found + in_sectors(shared) - (in_sectors(first) if partials else 0)


class _KindInUse(NamedTuple):
    """What a plan makes of the slice groups of a kind of block."""

    slices: int
    """Of its largest group."""
    width: int
    """Channels that these compute inside."""
    attends: bool
    """Whether tokens attend to each other, with a head in each slice."""
    shares: int
    """Into which each step's tokens are divided."""
    factor: float
    """What all lanes take together, over what one does."""
    every_slice: int
    """Slices of all groups."""
    every: int
    """Channels that these compute inside."""

    @classmethod
    def of(cls, kind: BlockKind, plan: Plan) -> _KindInUse:
        """Those of a plan."""
        starts = (sum(kind.groups[:number]) for number in range(len(kind.groups)))
        count, lanes = sum(start < plan.width for start in starts), plan.threads.compute
        shares = len(shares_of(count, lanes))
        at_once = min(lanes, count * shares)
        slices = min(plan.width, max(kind.groups))
        inner = max(
            prod(item.shape[:-2]) * item.shape[-1]
            for item in kind.operands
            if item.joined == COLUMNS
        )
        factor = _MERGED * at_once if at_once > 1 else 1.0
        attends, every = kind.slice_unit == _HEAD, min(plan.width, sum(kind.groups))
        return cls(slices, slices * inner, attends, shares, factor, every, every * inner)

    def values(self, group: Workload) -> float:
        """Bytes that ONNX Runtime's arena takes for the values inside its graph."""
        batch, tokens = group
        rows = ceil(tokens / self.shares)
        if self.attends:
            scores = batch * self.slices * rows * tokens
            found = _SCORES * scores + self.width * batch * (2 * tokens + rows)
        else:
            found = float(_INNER * self.width * batch * rows)
        several = _SEVERAL if batch > 1 else 1.0
        return several * self.factor * _FLOAT * found


def opened_part(size: int) -> MemoryPart:
    """What opening took."""
    return MemoryPart(OPENED, size)


def ring_size(plan: Plan, slot_sizes: Sequence[int]) -> int:
    """Bytes of a ring in which the steps that may be in it at once have room.

    It is no smaller than a huge page, as reads into one are faster, but where a budget of memory is
    so short that one thread does all.

    Args:
        slot_sizes: bytes of each step, in whole sectors.
    """
    alone = not plan.threads.storage
    size = ring_bytes(slot_sizes, 1 if alone else plan.read_ahead + 1)
    return size if alone and plan.target.memory_bytes is not None else max(HUGE_PAGE, size)


def ring_bytes(sizes: Sequence[int], most: int) -> int:
    """Bytes of a ring in which any ``most`` neighbouring steps of these sizes have room."""
    starts = range(max(1, len(sizes) - most + 1))
    return max(sum(sizes[start : start + most]) for start in starts)


def held_part(size: int) -> MemoryPart:
    """What the preload buffer holds."""
    return MemoryPart(HELD, size)


def _slot_sizes(manifest: Manifest, plan: Plan) -> list[int]:
    """Bytes of each step's slot."""
    groups = [manifest.group(item.layer, item.kind, item.group) for item in plan.steps]
    return [slot_size(group, item) for group, item in zip(groups, plan.steps, strict=True)]


def slot_size(group: SliceGroup, item: PlanStep) -> int:
    """Bytes of a step's slot in a ring, in whole sectors: groups start at one."""
    return sum(
        cover(ByteRange(found.offset, found.length)).length
        for found in group_ranges(group, item.counts)
    )


def _objects(plan: Plan, blocks: int) -> int:
    """Bindings, jobs, threads and the rest."""
    threads = plan.threads
    bindings = len(plan.steps) * threads.compute + blocks + 2
    count = threads.storage + threads.decode + threads.compute
    return (
        _REST + _THREAD * count + _BINDING * min(bindings, _MOST_BINDINGS) + _STEP * len(plan.steps)
    )
