"""What a machine was measured to do: the device profile, as frozen data.

In: measurements (``sti.calibration.calibrate``) or a JSON file. Out: predictions of how long a
read, a decode or a graph takes, in seconds. Pure: no clock, no file. The planner's only source of
times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sti.errors import ProfileError
from sti.json_fields import JsonFields
from sti.model.workload import Workload

PROFILE_VERSION = 1
COMPUTE_TERMS = 5
"""Terms of the compute model: 1, m, T, m T, m T S (T tokens in the batch, S in a sentence)."""


@dataclass(frozen=True, slots=True)
class StorageProfile:
    """Sequential reads: ``request_s + bytes / bytes_per_s`` each; ``row_s`` a token embedding."""

    direct: bool
    """Whether O_DIRECT works where the pack lies."""
    request_s: float
    bytes_per_s: float
    row_s: float

    def read_s(self, requests: int, read_bytes: int) -> float:
        """Seconds to read ``read_bytes`` in ``requests`` requests."""
        return requests * self.request_s + read_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True)
class DecodeProfile:
    """One decode thread: ``shard_s`` a shard plus ``weight_s[bits]`` a weight."""

    shard_s: float
    weight_s: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A machine's lanes, as measured with one pack's graphs. Immutable, JSON-able."""

    device: str
    """For people: processor, cores, system."""
    threads: int
    """Compute threads the graphs were measured with."""
    decoders: int
    """Decode threads that run beside compute."""
    storage: StorageProfile
    decode: DecodeProfile
    compute: Mapping[str, tuple[float, ...]]
    """Graph name (without variant) to coefficients in seconds of ``COMPUTE_TERMS``."""
    tokenize_s: float
    """Seconds a token in the tokenizer."""
    fixed_s: float
    """Seconds a run costs beside its lanes (thread start, collecting the answer)."""
    contention: float
    """How much slower compute is while storage and decode are busy (1: not at all)."""
    jitter: float
    """95th percentile over median of a run, at least 1."""

    def compute_s(self, graph: str, workload: Workload, width: int) -> float:
        """Seconds one run of ``graph`` takes on ``width`` slices, alone on the machine."""
        tokens = workload.batch * workload.tokens
        terms = (1.0, width, tokens, width * tokens, width * tokens * workload.tokens)
        return sum(term * factor for term, factor in zip(terms, self.compute[graph], strict=True))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back to an equal profile."""
        body = asdict(self)
        body["decode"]["weight_s"] = {str(k): v for k, v in self.decode.weight_s.items()}
        return {"profile": PROFILE_VERSION, **body}

    @classmethod
    def from_json(cls, value: object, *, where: str) -> DeviceProfile:
        """Parse a profile.

        Raises:
            ProfileError: an unknown version, or a missing or ill-typed field; names ``where``.
        """
        fields = JsonFields(value, where=where, error=ProfileError)
        version = fields.integer("profile")
        if version != PROFILE_VERSION:
            raise ProfileError(f"{where}: profile version {version} is unknown; `sti calibrate`")
        storage, decode = fields.object("storage"), fields.object("decode")
        weight_s, compute = decode.object("weight_s"), fields.object("compute")
        graphs = {key: compute.numbers(key) for key in compute.keys()}
        if any(len(terms) != COMPUTE_TERMS for terms in graphs.values()):
            raise ProfileError(f"{where}: compute needs {COMPUTE_TERMS} terms a graph")
        if not all(key.isascii() and key.isdigit() and len(key) < 3 for key in weight_s.keys()):
            raise ProfileError(f"{where}: decode.weight_s must be keyed by bits")
        return cls(
            device=fields.text("device"),
            threads=fields.integer("threads", least=1),
            decoders=fields.integer("decoders", least=1),
            storage=StorageProfile(
                direct=storage.flag("direct"),
                request_s=storage.number("request_s", least=0.0),
                bytes_per_s=storage.number("bytes_per_s", least=1.0),
                row_s=storage.number("row_s", least=0.0),
            ),
            decode=DecodeProfile(
                shard_s=decode.number("shard_s", least=0.0),
                weight_s={int(key): weight_s.number(key, least=0.0) for key in weight_s.keys()},
            ),
            compute=graphs,
            tokenize_s=fields.number("tokenize_s", least=0.0),
            fixed_s=fields.number("fixed_s", least=0.0),
            contention=fields.number("contention", least=1.0),
            jitter=fields.number("jitter", least=1.0),
        )
