"""Records of the times that were measured, passed from timing to fitting. Pure.

All times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sti.model.workload import Workload
from sti.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step of a sequential run: decoding its shards, and its graph."""

    kind: str
    bits: int
    shards: int
    weights: int
    decode_s: float
    workload: Workload
    width: int
    variant: str
    compute_s: float


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One whole run: its wall time, and how long each lane worked on blocks, on all its threads."""

    plan: Plan
    """What was run: the first steps of a model, under its threads."""
    total_s: float
    busy_s: Mapping[str, float]


@dataclass(slots=True)
class Observations:
    """Everything that was timed. Lists hold one entry per sample. Not thread-safe."""

    reads: list[tuple[int, float]] = field(default_factory=list)
    """Bytes of one request, and its seconds."""
    rows: list[tuple[int, float]] = field(default_factory=list)
    """Token embeddings read at once, and the seconds it took."""
    tokens: list[tuple[int, float]] = field(default_factory=list)
    """Tokens of a batch of texts, and the tokenizer's seconds."""
    steps: list[StepTime] = field(default_factory=list)
    ends: list[tuple[str, Workload, float]] = field(default_factory=list)
    """``embed``, ``connect`` or ``head``, the workload, and seconds."""
    runs: list[TimedRun] = field(default_factory=list)
    """Short and long ones under each kind of threads."""
