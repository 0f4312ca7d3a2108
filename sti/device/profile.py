"""The measured speed of a machine's storage, decoder and processor, as frozen data.

In: measurements (``sti.calibration.calibrate``) or the JSON of a file. Out: predictions of how long
a read, a decode or a graph takes, in seconds. Pure: no clock, no file. The planner's only source of
times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, TypeVar

from sti.device.lane_profiles import (
    ComputeProfile,
    DecodeProfile,
    LaneProfile,
    RunProfile,
    StorageProfile,
)
from sti.device.lanes import COMPUTE, DECODE, LANES, MOST_THREADS, STORAGE, LaneThreads
from sti.device.profile_json import lane_json, read_lanes, read_name, read_runs, read_seconds
from sti.errors import ProfileError
from sti.json_fields import JsonFields
from sti.model.workload import Workload

PROFILE_VERSION = 5
MOST_DISTURBED = 0.05
"""Share of the time that threads may wait for a core; beyond it others use the machine, and what
was measured meanwhile is provisional."""
LEAST_JITTER, MOST_JITTER = 1.02, 3.0
"""Bounds of the jitter of measured runs, so that a few samples neither promise nor refuse all."""
UNKNOWN = "unknown"
"""Instructions and kernel of a machine that was not measured, only described."""

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
        body["lanes"] = {name: lane_json(lane) for name, lane in self.lanes.items()}
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
            device=read_name(fields, "device"),
            threads=fields.integer("threads", least=1, most=MOST_THREADS),
            lanes=read_lanes(lanes),
            runs=read_runs(fields.object("runs")),
            tokenize_s=read_seconds(fields, "tokenize_s"),
            instructions=read_name(fields, "instructions"),
            kernel=read_name(fields, "kernel"),
            disturbed=fields.number("disturbed", least=0.0, most=1.0),
        )

    def _lane(self, name: str, kind: type[Lane]) -> Lane:
        found = self.lanes.get(name)
        if not isinstance(found, kind):
            raise ProfileError(f"device profile {self.device!r}: has no {name} lane")
        return found
