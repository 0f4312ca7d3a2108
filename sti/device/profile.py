"""The measured speed of a machine's storage, decoder and processor, as frozen data.

In: measurements (``sti.calibration.calibrate``) or the JSON of a file. Out: predictions of how long
a read, a decode or a graph takes, in seconds. Pure: no clock, no file. The planner's only source of
times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

from sti.device.lanes import (
    COMPUTE,
    DECODE,
    LANES,
    PIPELINED,
    SEQUENTIAL,
    STORAGE,
    LaneThreads,
    shared,
)
from sti.errors import ProfileError
from sti.json_fields import JsonFields
from sti.model.workload import Workload

PROFILE_VERSION = 4
THREAD_NAMES = (SEQUENTIAL.name, PIPELINED.name, shared(1).name)
"""The kinds of ``LaneThreads``, as ``DeviceProfile.runs`` names them."""
UNKNOWN = "unknown"
"""Instructions and kernel of a machine that was not measured, only described."""
COMPUTE_TERMS = 5
"""Terms of the compute model: 1, m, T, m T, m T S (T tokens in the batch, S in a sentence)."""


@dataclass(frozen=True, slots=True)
class StorageProfile:
    """Sequential reads: ``request_s + bytes / bytes_per_s`` each; ``row_s`` per token embedding."""

    direct: bool
    """Whether O_DIRECT works where the pack is stored."""
    request_s: float
    bytes_per_s: float
    row_s: float

    def read_s(self, requests: int, read_bytes: int) -> float:
        """Seconds to read ``read_bytes`` in ``requests`` requests."""
        return requests * self.request_s + read_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True)
class DecodeProfile:
    """One decode thread: ``shard_s`` seconds per shard plus ``weight_s[bits]`` per weight."""

    shard_s: float
    weight_s: Mapping[int, float]


class ComputeProfile(NamedTuple):
    """One compute lane, running one graph at a time."""

    graphs: Mapping[str, tuple[float, ...]]
    """Graph to coefficients in seconds of ``COMPUTE_TERMS``. A block's narrow graph has an entry of
    its own, ``<kind>.narrow``, where this machine computes it faster than the exact one."""


@dataclass(frozen=True, slots=True)
class RunProfile:
    """What whole runs under one kind of ``LaneThreads`` take beyond what their lanes take alone."""

    contention: Mapping[str, float]
    """Lane to the factor by which its work takes longer in such a run than when it is timed alone;
    above 0."""
    step_s: float
    """Seconds that each step waits for threads to wake up."""
    fixed_s: float
    """Seconds outside the lanes (thread start, collecting the answer)."""
    jitter: float
    """95th percentile of a run's time over its typical time, at least 1."""


LaneProfile = StorageProfile | DecodeProfile | ComputeProfile
Lane = TypeVar("Lane", StorageProfile, DecodeProfile, ComputeProfile)


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A machine's lanes, as measured with one pack's graphs. Immutable, JSON-able."""

    device: str
    """For people: processor, cores, system."""
    threads: int
    """Compute threads the graphs were measured with, those of all compute lanes together."""
    lanes: Mapping[str, LaneProfile]
    """Lane name to its costs, alone on the machine."""
    runs: Mapping[str, RunProfile]
    """Name of ``LaneThreads`` to what runs under them add; those that this machine may use."""
    tokenize_s: float
    """Seconds per token in the tokenizer."""
    instructions: str = UNKNOWN
    """The processor's int8 instructions, as ``sti.device.identity`` names them."""
    kernel: str = UNKNOWN
    """How weights were decoded: the path of the decoder, e.g. ``avx2`` or ``portable``."""

    @property
    def storage(self) -> StorageProfile:
        """The storage lane."""
        return self._lane(STORAGE, StorageProfile)

    @property
    def decode(self) -> DecodeProfile:
        """The decode lane."""
        return self._lane(DECODE, DecodeProfile)

    @property
    def compute(self) -> ComputeProfile:
        """The compute lane."""
        return self._lane(COMPUTE, ComputeProfile)

    def run(self, threads: LaneThreads) -> RunProfile:
        """What runs under ``threads`` add to their lanes' times.

        Raises:
            ProfileError: such runs were not measured.
        """
        found = self.runs.get(threads.name)
        if found is None or threads.compute not in (1, self.threads):
            on = f" on {threads.compute} threads" if threads.compute > 1 else ""
            raise ProfileError(
                f"device profile {self.device!r}: has no {threads.name} runs{on}; "
                "measure again with `sti calibrate`"
            )
        return found

    def with_lanes(self, lanes: Mapping[str, LaneProfile]) -> DeviceProfile:
        """The same machine with some lanes replaced."""
        return replace(self, lanes={**self.lanes, **lanes})

    def compute_s(self, graph: str, workload: Workload, width: int) -> float:
        """Seconds that one run of ``graph`` takes on ``width`` slices, other lanes being idle."""
        tokens = workload.batch * workload.tokens
        terms = (1.0, width, tokens, width * tokens, width * tokens * workload.tokens)
        return sum(
            term * factor for term, factor in zip(terms, self.compute.graphs[graph], strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back to an equal profile."""
        body = asdict(self)
        body["lanes"] = {name: _lane_json(lane) for name, lane in self.lanes.items()}
        return {"profile": PROFILE_VERSION, **body}

    @classmethod
    def from_json(cls, value: object, *, where: str) -> DeviceProfile:
        """Parse a profile.

        Raises:
            ProfileError: an unknown version or lane, or a field that is missing or of the wrong
                type; names ``where``.
        """
        fields = JsonFields(value, where=where, error=ProfileError)
        remedy = "measure again with `sti calibrate`"
        fields.require_version("profile", PROFILE_VERSION, remedy=remedy)
        lanes = fields.object("lanes")
        return cls(
            device=fields.text("device"),
            threads=fields.integer("threads", least=1),
            lanes=_lanes(lanes),
            runs=_runs(fields.object("runs")),
            tokenize_s=fields.number("tokenize_s", least=0.0),
            instructions=fields.text("instructions"),
            kernel=fields.text("kernel"),
        )

    def _lane(self, name: str, kind: type[Lane]) -> Lane:
        found = self.lanes.get(name)
        if not isinstance(found, kind):
            raise ProfileError(f"device profile {self.device!r}: has no {name} lane")
        return found


def _lane_json(lane: LaneProfile) -> dict[str, Any]:
    if isinstance(lane, ComputeProfile):
        return lane._asdict()
    if isinstance(lane, DecodeProfile):
        weight_s = {str(bits): cost for bits, cost in lane.weight_s.items()}
        return {"shard_s": lane.shard_s, "weight_s": weight_s}
    return asdict(lane)


def _lanes(fields: JsonFields) -> dict[str, LaneProfile]:
    """The lanes by name: all that the cost model knows, and no other."""
    unknown = [name for name in fields.keys() if name not in _LANE_PARSERS]
    if unknown:
        known = ", ".join(_LANE_PARSERS)
        raise ProfileError(f"{fields.where}: unknown lane {unknown[0]!r:.60}; known are {known}")
    return {name: parse(fields.object(name)) for name, parse in _LANE_PARSERS.items()}


def _runs(fields: JsonFields) -> dict[str, RunProfile]:
    """Runs by the name of their threads: at least one kind, all of them known."""
    unknown = [name for name in fields.keys() if name not in THREAD_NAMES]
    if unknown or not fields.keys():
        known = ", ".join(THREAD_NAMES)
        found = f"unknown runs {unknown[0]!r:.60}" if unknown else "no runs"
        raise ProfileError(f"{fields.where}: {found}; known are {known}")
    return {name: _run(fields.object(name)) for name in fields.keys()}


def _run(fields: JsonFields) -> RunProfile:
    contention = fields.object("contention")
    factors = {lane: contention.number(lane, least=0.0) for lane in LANES}
    for lane, factor in factors.items():
        if not factor:
            raise contention.fail(lane, "above zero")
    return RunProfile(
        contention=factors,
        step_s=fields.number("step_s", least=0.0),
        fixed_s=fields.number("fixed_s", least=0.0),
        jitter=fields.number("jitter", least=1.0),
    )


def _storage(fields: JsonFields) -> StorageProfile:
    return StorageProfile(
        direct=fields.flag("direct"),
        request_s=fields.number("request_s", least=0.0),
        bytes_per_s=fields.number("bytes_per_s", least=1.0),
        row_s=fields.number("row_s", least=0.0),
    )


def _decode(fields: JsonFields) -> DecodeProfile:
    weight_s = fields.object("weight_s")
    if not all(key.isascii() and key.isdigit() and len(key) < 3 for key in weight_s.keys()):
        raise ProfileError(f"{fields.where}: weight_s must be keyed by bits")
    return DecodeProfile(
        shard_s=fields.number("shard_s", least=0.0),
        weight_s={int(key): weight_s.number(key, least=0.0) for key in weight_s.keys()},
    )


def _compute(fields: JsonFields) -> ComputeProfile:
    graphs = fields.object("graphs")
    terms = {key: graphs.numbers(key) for key in graphs.keys()}
    if any(len(found) != COMPUTE_TERMS for found in terms.values()):
        raise ProfileError(f"{fields.where}: compute needs {COMPUTE_TERMS} terms per graph")
    return ComputeProfile(terms)


_LANE_PARSERS: Mapping[str, Callable[[JsonFields], LaneProfile]] = {
    STORAGE: _storage,
    DECODE: _decode,
    COMPUTE: _compute,
}
