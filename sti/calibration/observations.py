"""What the lanes were measured to do: plain records, between timing and fitting. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sti.model.workload import Workload
from sti.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class BlockTime:
    """One block of a sequential run: shards decoded and the graph with its ``connect``."""

    kind: str
    bits: int
    shards: int
    weights: int
    decode_s: float
    workload: Workload
    width: int
    compute_s: float


@dataclass(frozen=True, slots=True)
class PipelinedRun:
    """One pipelined run: its wall time, and how long each lane worked on blocks."""

    total_s: float
    busy_s: Mapping[str, float]


@dataclass(slots=True)
class Observations:
    """Everything that was timed. Lists hold one entry a sample."""

    reads: list[tuple[int, float]] = field(default_factory=list)
    """Bytes of one request, and its seconds."""
    rows: list[tuple[int, float]] = field(default_factory=list)
    """Token embeddings of one reading, and its seconds."""
    tokens: list[tuple[int, float]] = field(default_factory=list)
    """Tokens of one text, and the tokenizer's seconds."""
    blocks: list[BlockTime] = field(default_factory=list)
    ends: list[tuple[str, Workload, float]] = field(default_factory=list)
    """``embed``, ``connect`` or ``head``, the workload, and seconds."""
    pipelined: list[PipelinedRun] = field(default_factory=list)
    pipelined_plan: Plan | None = None
    """What the pipelined runs followed: the leading blocks of a plan."""
