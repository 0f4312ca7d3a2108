"""The parts of a device profile from JSON and to JSON: lanes, runs, and what a number may be.

In: fields of a JSON object. Out: frozen data, all of it plausible; or what ``JsonFields`` raises.
Pure: no clock, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sti.device.lane_profiles import (
    COMPUTE_TERMS,
    LEAST_S,
    MOST_BYTES_PER_S,
    MOST_FACTOR,
    MOST_S,
    THREAD_NAMES,
    ComputeProfile,
    DecodeProfile,
    LaneProfile,
    RunProfile,
    StorageProfile,
)
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE
from sti.errors import ProfileError
from sti.json_fields import JsonFields

_PLAUSIBLE = f"0, or seconds between {LEAST_S:g} and {MOST_S:g}"
_MOST_GRAPHS = 64
"""Of a profile: a pack has two for each kind of block, and three more."""
_MOST_NAME = 500
"""Characters of what a machine calls itself."""


def lane_json(lane: LaneProfile) -> dict[str, Any]:
    """A JSON object that ``read_lanes`` reads back to an equal lane."""
    if isinstance(lane, ComputeProfile):
        return lane._asdict()
    if isinstance(lane, DecodeProfile):
        weight_s = {str(bits): cost for bits, cost in lane.weight_s.items()}
        return {"shard_s": lane.shard_s, "weight_s": weight_s}
    return asdict(lane)


def read_lanes(fields: JsonFields) -> dict[str, LaneProfile]:
    """The lanes by name: all that the cost model knows, and no other."""
    unknown = [name for name in fields.keys() if name not in _LANE_PARSERS]
    if unknown:
        known = ", ".join(_LANE_PARSERS)
        raise ProfileError(f"{fields.where}: unknown lane {unknown[0]!r:.60}; known are {known}")
    return {name: parse(fields.object(name)) for name, parse in _LANE_PARSERS.items()}


def read_runs(fields: JsonFields) -> dict[str, RunProfile]:
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
        step_s=read_seconds(fields, "step_s"),
        fixed_s=read_seconds(fields, "fixed_s"),
        jitter=fields.number("jitter", least=1.0, most=MOST_FACTOR),
        spread={lane: spread.number(lane, least=1.0, most=MOST_FACTOR) for lane in spread.keys()},
    )


def read_storage(fields: JsonFields) -> StorageProfile:
    """Parse the storage lane of a profile; raises what ``fields`` does."""
    fields.only("direct", "request_s", "bytes_per_s", "row_s")
    return StorageProfile(
        direct=fields.flag("direct"),
        request_s=read_seconds(fields, "request_s"),
        bytes_per_s=fields.number("bytes_per_s", least=1.0, most=MOST_BYTES_PER_S),
        row_s=read_seconds(fields, "row_s"),
    )


def _decode(fields: JsonFields) -> DecodeProfile:
    weight_s = fields.only("shard_s", "weight_s").object("weight_s")
    if not all(key.isascii() and key.isdigit() and len(key) < 3 for key in weight_s.keys()):
        raise ProfileError(f"{fields.where}: weight_s must be keyed by bits")
    return DecodeProfile(
        shard_s=read_seconds(fields, "shard_s"),
        weight_s={int(key): read_seconds(weight_s, key) for key in weight_s.keys()},
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


def read_name(fields: JsonFields, key: str) -> str:
    """A text for people."""
    found = fields.text(key)
    if len(found) > _MOST_NAME:
        raise fields.fail(key, f"at most {_MOST_NAME} characters")
    return found


def read_seconds(fields: JsonFields, key: str) -> float:
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
