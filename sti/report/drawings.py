"""Drawings of plans and runs: bits by layer and slice, and what lanes did when. Pure.

In: a manifest, plans, spans. Out: SVG documents of any width. How shapes are drawn is the business
of ``sti.report.svg``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sti.device.lanes import LANES
from sti.model.fidelity import fidelities
from sti.model.manifest import Manifest
from sti.planning.plan import Plan
from sti.planning.span import Span, busy_s
from sti.report.svg.canvas import WIDTH
from sti.report.svg.heat_map import HeatPanel
from sti.report.svg.legend import Entry
from sti.report.svg.timeline import TimelineLane, TimelineSpan, timeline

LEGEND = (
    Entry("attention", "blue", area=True),
    Entry("FFN", "orange", area=True),
    Entry("other", "grey", area=True),
)


class MetricScale(NamedTuple):
    """How a metric is drawn along an axis."""

    factor: float
    """To multiply values with."""
    label: str
    """With the unit."""


def metric_scale(metric: str) -> MetricScale:
    """Accuracies in percent, other metrics as they are."""
    return MetricScale(100.0, "accuracy, %") if metric == "accuracy" else MetricScale(1.0, metric)


def fidelity_panels(manifest: Manifest, plan: Plan) -> list[HeatPanel]:
    """The bits of every shard, by kind of block; 0 where one is not in use."""
    dimensions = manifest.dimensions
    bits = {
        kind.name: [[0] * dimensions.slices for _ in range(dimensions.layers)]
        for kind in manifest.kinds
    }
    for step in plan.steps:
        group = manifest.group(step.layer, step.kind, step.group)
        for place, used in enumerate(fidelities(group, step.counts)[: group.used(plan.width)]):
            bits[step.kind][step.layer][group.first + place] = used
    return [HeatPanel(kind, rows) for kind, rows in bits.items()]


def lane_timeline(lanes: Mapping[str, Sequence[Span]], *, title: str, width: float = WIDTH) -> str:
    """When each lane worked on each slice group; its colour is that of attention or of the FFN.

    Raises:
        InputError: as ``sti.report.svg.timeline.timeline``.
    """
    drawn = [
        TimelineLane(
            lane,
            f"{busy_s(lanes.get(lane, ())) * 1e3:.1f} ms",
            [
                TimelineSpan(span.start_s, span.end_s, _colour(span.name), span.name)
                for span in lanes.get(lane, ())
            ],
        )
        for lane in dict.fromkeys((*LANES, *lanes))
    ]
    description = "When each lane worked on each slice group: " + ", ".join(
        f"{lane.name} {lane.note}" for lane in drawn
    )
    return timeline(drawn, title=title, description=description, legend=LEGEND, width=width)


def _colour(name: str) -> str:
    """That of the block that a span belongs to."""
    return "blue" if "attention" in name else "orange" if "ffn" in name else "grey"
