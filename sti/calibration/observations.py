"""Records of the times that were measured, passed from timing to fitting. Pure.

All times are seconds. ``waited`` is the share of its time that a sample waited for a core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sti.model.workload import Workload
from sti.planning.plan import Plan


class Sized(NamedTuple):
    """Work that is known by one number: bytes of a read, tokens of a batch."""

    size: int
    seconds: float
    waited: float = 0.0


class EndTime(NamedTuple):
    """``embed``, ``connect`` or ``head``."""

    name: str
    workload: Workload
    seconds: float
    waited: float = 0.0


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
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One whole run: its wall time, and how long each lane worked on blocks, on all its threads."""

    plan: Plan
    """What was run: the first steps of a model, under its threads."""
    total_s: float
    """From texts to outputs, tokenizing included."""
    busy_s: Mapping[str, float]
    waited: float = 0.0


@dataclass(slots=True)
class Observations:
    """Everything that was timed. Lists hold one entry per sample. Not thread-safe."""

    reads: list[Sized] = field(default_factory=list)
    """Requests, by bytes."""
    rows: list[Sized] = field(default_factory=list)
    """Token embeddings read at once."""
    tokens: list[Sized] = field(default_factory=list)
    """Tokens of a batch of texts, in the tokenizer."""
    steps: list[StepTime] = field(default_factory=list)
    ends: list[EndTime] = field(default_factory=list)
    runs: list[TimedRun] = field(default_factory=list)
    """Short and long ones under each kind of threads."""
