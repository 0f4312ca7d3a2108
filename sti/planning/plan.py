"""What a plan is: shards per plane and step, what is preloaded, and what to expect.

In: the planner's decisions, or a plan saved as JSON. Out: immutable data that the executors follow.
Knows nothing of how a plan was found, nor of files, clocks or threads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, NamedTuple

from sti.device.lanes import LANES, MOST_THREADS, LaneThreads, is_lane
from sti.errors import PlanError
from sti.json_fields import JsonFields
from sti.model.manifest import Manifest
from sti.model.quality import Estimate
from sti.model.workload import Workload
from sti.planning.span import Span
from sti.storage.json_input import JsonLimits, parse_json

PLAN_VERSION = 4
PLAN_LIMITS = JsonLimits(1 << 22, 1 << 17, 12)
"""Of a plan's file. Some 30 values a step, of its own and of its spans: room for 48 layers of 32
groups a block."""
PLANNING = 5
"""Raised with every change that makes the planner choose differently, so that remembered plans are
made again; ``tests/planning/test_planner.py`` fails when it is due."""

_MOST_SIZE, _MOST_AHEAD, _MOST_S = 10**6, 1024, 1e6
"""Of a workload, of the steps that are read ahead, of a run: more is no plan."""

EXACT = "exact"
"""Variant: exact products, from whichever graphs this processor computes exactly."""
NARROW = "narrow"
"""Variant: weights rounded to 7 bits, so that no product of two pairs saturates 16 bits."""
VARIANTS = (EXACT, NARROW)
LOCAL = "local"
"""Device: this machine."""
QUALITY = "quality"
"""What limits a run that has the best that is in the pack."""


DEFAULT_QUANTILE = 0.98
DEFAULT_FLOOR = 0.95


class Target(NamedTuple):
    """What the caller asks for. ``latency_s`` None means: best quality, whatever it takes."""

    latency_s: float | None = None
    preload_bytes: int = 0
    quantile: float = DEFAULT_QUANTILE
    """Share of runs that shall take no longer than ``latency_s``."""
    floor: float = DEFAULT_FLOOR
    """The least metric to expect, as a share of the full model's."""
    floor_is_limit: bool = False
    """Whether a plan below the floor is refused; else it is told."""
    memory_bytes: int | None = None
    """The most that an engine may add to the memory of its process; None: as much as it takes."""
    threads: tuple[str, ...] = ()
    """Names of the ``LaneThreads`` that memory has room for; empty: all."""


class PlanRequest(NamedTuple):
    """What is to be planned: a workload of one pack, for a target."""

    manifest: Manifest
    pack_id: str
    """Identifies the pack that the manifest is of."""
    workload: Workload
    """Sentences and tokens of the longest, rounded up to a bucket."""
    target: Target = Target()
    asked: Workload | None = None
    """What ``workload`` was rounded up from, for messages; None: it is what was asked for."""


class PlanStep(NamedTuple):
    """One step of a run: one slice group of one block of the submodel.

    ``counts[p]`` shards are read of plane ``p``, in that plane's order; ``counts[0]`` is how many
    of the group's slices are in use. ``preload_bytes`` leading bytes of what is read are held in
    the preload buffer.
    """

    layer: int
    kind: str
    group: int
    """Which group of the block's slices."""
    counts: tuple[int, ...]
    preload_bytes: int
    variant: str = EXACT
    """How products are computed."""
    device: str = LOCAL
    """Where the step runs."""

    @property
    def name(self) -> str:
        """What the step is called in predictions, traces and messages."""
        return step_name(self.layer, self.kind, self.group)


def connect_name(layer: int, kind: str) -> str:
    """What a block's ``connect`` is called in predictions, traces and messages."""
    return f"{layer} {kind} connect"


def step_name(layer: int, kind: str, group: int) -> str:
    """What a slice group is called in predictions, traces and messages."""
    return f"{layer} {kind} {group}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the planner expects of a run. Times in seconds, medians."""

    total_s: float
    stall_s: float
    """Time in which the calling thread has nothing to do after ``embed`` has begun."""
    bytes_read: int
    loss: float
    """Expected loss above the full model at the top of the ladder, in the pack's unit."""
    limited_by: str
    """The name of a lane, or ``QUALITY`` where nothing better is in the pack, as far as its
    calibration can tell."""
    lanes: Mapping[str, tuple[Span, ...]]
    """Lane to its work, in order: the steps by their names, and what comes before, between and
    after. Threads that share compute have lanes of their own (``sti.device.lanes.lane_of``)."""
    quality: Estimate | None
    """The metric to expect; None for packs that have not measured theirs."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object; lanes as lists of spans."""
        return {
            "total_s": self.total_s,
            "stall_s": self.stall_s,
            "bytes_read": self.bytes_read,
            "loss": self.loss,
            "limited_by": self.limited_by,
            "lanes": {
                lane: [span._asdict() for span in spans] for lane, spans in self.lanes.items()
            },
            "quality": None if self.quality is None else self.quality._asdict(),
        }

    @property
    def busy_s(self) -> dict[str, float]:
        """Lane to the seconds in which it works."""
        return {lane: sum(span.duration_s for span in spans) for lane, spans in self.lanes.items()}

    def span(self, lane: str, name: str) -> Span | None:
        """When a lane works on the step of this name; None where it does not."""
        return next((span for span in self.lanes.get(lane, ()) if span.name == name), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan for one pack, one workload bucket and one machine. Immutable, JSON-able."""

    pack: str
    """``pack_id`` of the pack it was made for."""
    workload: Workload
    target: Target
    depth: int
    width: int
    threads: LaneThreads
    """Who reads, decodes and computes."""
    read_ahead: int
    """Steps that may be read beyond the one being decoded."""
    steps: tuple[PlanStep, ...]
    """In the order of execution."""
    predicted: Prediction | None
    """None for a plan that was pinned without a device profile."""

    @property
    def work_names(self) -> frozenset[str]:
        """The names of the steps, and of what connects their blocks."""
        steps = {step.name for step in self.steps}
        return frozenset(steps | {connect_name(step.layer, step.kind) for step in self.steps})

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back to an equal plan."""
        predicted = self.predicted
        return {
            "plan": PLAN_VERSION,
            "pack": self.pack,
            "workload": self.workload._asdict(),
            "target": self.target._asdict(),
            "depth": self.depth,
            "width": self.width,
            "threads": self.threads._asdict(),
            "read_ahead": self.read_ahead,
            "steps": [step._asdict() for step in self.steps],
            "predicted": None if predicted is None else predicted.to_json(),
        }

    def to_text(self) -> str:
        """The plan as indented JSON text."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    @classmethod
    def from_text(cls, text: bytes | str, *, where: str) -> Plan:
        """Read a plan that ``to_text`` made, or the text of a plan's file.

        Raises:
            PlanError: not JSON, an unknown version, or ill-typed fields; names ``where``.
        """
        try:
            parsed = parse_json(text, PLAN_LIMITS)
        except ValueError as error:
            raise PlanError(f"{where}: not a plan: invalid JSON: {error}") from error
        return cls.from_json(parsed, where=where)

    @classmethod
    def from_json(cls, value: object, *, where: str) -> Plan:
        """As ``from_text``, from parsed JSON."""
        fields = JsonFields(value, where=where, error=PlanError)
        fields.require_version("plan", PLAN_VERSION, remedy="make the plan again")
        workload = fields.object("workload").only(*Workload._fields)
        target = fields.object("target").only(*Target._fields)
        threads = fields.object("threads").only(*LANES)
        return cls(
            pack=fields.text("pack"),
            workload=Workload(
                workload.integer("batch", least=1, most=_MOST_SIZE),
                workload.integer("tokens", least=1, most=_MOST_SIZE),
            ),
            target=Target(
                target.number("latency_s", least=0.0, most=_MOST_S)
                if target.has("latency_s")
                else None,
                target.integer("preload_bytes"),
                target.number("quantile", least=0.01, most=0.9999),
                target.number("floor", least=0.0, most=1.0),
                target.flag("floor_is_limit"),
                target.integer("memory_bytes") if target.has("memory_bytes") else None,
                target.texts("threads") if target.has("threads") else (),
            ),
            depth=fields.integer("depth", least=1),
            width=fields.integer("width", least=1),
            threads=LaneThreads(*(threads.integer(lane, most=MOST_THREADS) for lane in LANES)),
            read_ahead=fields.integer("read_ahead", least=1, most=_MOST_AHEAD),
            steps=tuple(
                PlanStep(
                    item.integer("layer"),
                    item.text("kind"),
                    item.integer("group"),
                    item.integers("counts"),
                    item.integer("preload_bytes"),
                    item.text("variant"),
                    item.text("device"),
                )
                for item in (step.only(*PlanStep._fields) for step in fields.objects("steps"))
            ),
            predicted=(
                _prediction(fields.object("predicted")) if fields.has("predicted") else None
            ),
        )


def _prediction(fields: JsonFields) -> Prediction:
    fields.only(*(item.name for item in dataclass_fields(Prediction)))
    lanes = fields.object("lanes")
    for lane in lanes.keys():
        if not is_lane(lane, MOST_THREADS):
            raise PlanError(f"{lanes.where}: no lane is called {lane!r:.60}")
    limited_by = fields.text("limited_by")
    if limited_by not in (QUALITY, *LANES):
        raise fields.fail("limited_by", f"{QUALITY} or one of {', '.join(LANES)}")
    return Prediction(
        total_s=fields.number("total_s", least=1e-9, most=_MOST_S),
        stall_s=fields.number("stall_s", least=0.0, most=_MOST_S),
        bytes_read=fields.integer("bytes_read"),
        loss=fields.number("loss"),
        limited_by=limited_by,
        lanes={lane: tuple(map(_span, lanes.objects(lane))) for lane in lanes.keys()},
        quality=_estimate(fields.object("quality")) if fields.has("quality") else None,
    )


def _span(fields: JsonFields) -> Span:
    start_s = fields.number("start_s", least=0.0, most=_MOST_S)
    return Span(start_s, fields.number("end_s", least=start_s, most=_MOST_S), fields.text("name"))


def _estimate(fields: JsonFields) -> Estimate:
    return Estimate(
        metric=fields.text("metric"),
        value=fields.number("value"),
        low=fields.number("low"),
        high=fields.number("high"),
    )
