"""The measured speed of a machine's storage, decoder and processor, as frozen data.

In: measurements (``sti.calibration.calibrate``) or the JSON of a file. Out: predictions of how long
a read, a decode or a graph takes, in seconds. Pure: no clock, no file. The planner's only source of
times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
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

PROFILE_VERSION = 5
MOST_DISTURBED = 0.05
"""Share of the time that threads may wait for a core; beyond it others use the machine, and what
was measured meanwhile is provisional."""
LEAST_JITTER, MOST_JITTER = 1.02, 3.0
"""Bounds of the jitter of measured runs, so that a few samples neither promise nor refuse all."""
THREAD_NAMES = (SEQUENTIAL.name, PIPELINED.name, shared(1).name)
"""The kinds of ``LaneThreads``, as ``DeviceProfile.runs`` names them."""
UNKNOWN = "unknown"
"""Instructions and kernel of a machine that was not measured, only described."""
LEAST_S, MOST_S = 1e-18, 1e3
"""Bounds of what one piece of work takes, a weight or a request; what lies outside is no time."""
_PLAUSIBLE = f"0, or seconds between {LEAST_S:g} and {MOST_S:g}"
MOST_FACTOR = 1e4
MOST_BYTES_PER_S = 1e15
MOST_THREADS = 1024
"""What a profile may say, and be believed."""
_MOST_GRAPHS = 64
"""Of a profile: a pack has two for each kind of block, and three more."""
_MOST_NAME = 500
"""Characters of what a machine calls itself."""
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
    """98th percentile of a run's time over its typical time, at least 1: what is assumed until runs
    show how much they differ."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Lane to the same ratio of the time that it works in such a run; empty where unknown."""


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
    disturbed: float = 0.0
    """Share of the time that what was measured waited for a core, 0 to 1."""

    @property
    def provisional(self) -> bool:
        """Whether the machine was so busy meanwhile that it should be measured again."""
        return self.disturbed > MOST_DISTURBED

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

    def slowed(self, lanes: Mapping[str, float]) -> DeviceProfile:
        """The same machine with every time of a lane multiplied by its factor.

        Args:
            lanes: name of a lane to its factor, above 0; lanes left out are as they were.
        """
        storage, decode, compute = (lanes.get(lane, 1.0) for lane in LANES)
        read, decoded = self.storage, self.decode
        return self.with_lanes(
            {
                STORAGE: replace(
                    read,
                    request_s=read.request_s * storage,
                    bytes_per_s=read.bytes_per_s / storage,
                    row_s=read.row_s * storage,
                ),
                DECODE: DecodeProfile(
                    decoded.shard_s * decode,
                    {bits: cost * decode for bits, cost in decoded.weight_s.items()},
                ),
                COMPUTE: ComputeProfile(
                    {
                        graph: tuple(factor * compute for factor in factors)
                        for graph, factors in self.compute.graphs.items()
                    }
                ),
            }
        )

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
        fields.only("profile", *(item.name for item in dataclass_fields(cls)))
        lanes = fields.object("lanes")
        return cls(
            device=_name(fields, "device"),
            threads=fields.integer("threads", least=1, most=MOST_THREADS),
            lanes=_lanes(lanes),
            runs=_runs(fields.object("runs")),
            tokenize_s=_seconds(fields, "tokenize_s"),
            instructions=_name(fields, "instructions"),
            kernel=_name(fields, "kernel"),
            disturbed=fields.number("disturbed", least=0.0, most=1.0),
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
    fields.only("contention", "step_s", "fixed_s", "jitter", "spread")
    contention = fields.object("contention").only(*LANES)
    spread = fields.object("spread").only(*LANES)
    return RunProfile(
        contention={
            lane: contention.number(lane, least=1 / MOST_FACTOR, most=MOST_FACTOR) for lane in LANES
        },
        step_s=_seconds(fields, "step_s"),
        fixed_s=_seconds(fields, "fixed_s"),
        jitter=fields.number("jitter", least=1.0, most=MOST_FACTOR),
        spread={lane: spread.number(lane, least=1.0, most=MOST_FACTOR) for lane in spread.keys()},
    )


def read_storage(fields: JsonFields) -> StorageProfile:
    """Parse the storage lane of a profile; raises what ``fields`` does."""
    fields.only("direct", "request_s", "bytes_per_s", "row_s")
    return StorageProfile(
        direct=fields.flag("direct"),
        request_s=_seconds(fields, "request_s"),
        bytes_per_s=fields.number("bytes_per_s", least=1.0, most=MOST_BYTES_PER_S),
        row_s=_seconds(fields, "row_s"),
    )


def _decode(fields: JsonFields) -> DecodeProfile:
    weight_s = fields.only("shard_s", "weight_s").object("weight_s")
    if not all(key.isascii() and key.isdigit() and len(key) < 3 for key in weight_s.keys()):
        raise ProfileError(f"{fields.where}: weight_s must be keyed by bits")
    return DecodeProfile(
        shard_s=_seconds(fields, "shard_s"),
        weight_s={int(key): _seconds(weight_s, key) for key in weight_s.keys()},
    )


def _compute(fields: JsonFields) -> ComputeProfile:
    graphs = fields.only("graphs").object("graphs")
    if len(graphs.keys()) > _MOST_GRAPHS:
        raise fields.fail("graphs", f"at most {_MOST_GRAPHS} graphs")
    terms = {key: graphs.numbers(key) for key in graphs.keys()}
    if any(len(found) != COMPUTE_TERMS for found in terms.values()):
        raise ProfileError(f"{fields.where}: compute needs {COMPUTE_TERMS} terms per graph")
    for key, found in terms.items():
        if not all(_is_plausible(cost) for cost in found):
            raise graphs.fail(key, _PLAUSIBLE)
    return ComputeProfile(terms)


def _name(fields: JsonFields, key: str) -> str:
    """A text for people."""
    found = fields.text(key)
    if len(found) > _MOST_NAME:
        raise fields.fail(key, f"at most {_MOST_NAME} characters")
    return found


def _seconds(fields: JsonFields, key: str) -> float:
    """Seconds of one piece of work: nothing, or what a machine may take."""
    found = fields.number(key)
    if not _is_plausible(found):
        raise fields.fail(key, _PLAUSIBLE)
    return found


def _is_plausible(seconds: float) -> bool:
    return seconds == 0.0 or LEAST_S <= seconds <= MOST_S


_LANE_PARSERS: Mapping[str, Callable[[JsonFields], LaneProfile]] = {
    STORAGE: read_storage,
    DECODE: _decode,
    COMPUTE: _compute,
}
