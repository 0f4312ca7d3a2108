"""What a page about a pack says, as values, and as JSON. Pure.

In: a plan and why it is so, plans for other latencies, memory, the machine, what was kept of runs.
Out: frozen values. Knows nothing of how they were found, nor of HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sti.device.profile import DeviceProfile
from sti.model.manifest import Manifest
from sti.planning.history import History
from sti.planning.history_json import history_json
from sti.planning.memory import MemoryPart
from sti.planning.plan import Plan
from sti.report.explanation import Explanation


class FrontierPoint(NamedTuple):
    """The plan for one latency, all else being as asked for."""

    latency_s: float
    plan: Plan
    """Has a prediction."""


class MachineFacts(NamedTuple):
    """What is known of the machine."""

    profile: DeviceProfile
    measured: str
    """When it was measured, for people; "" where that is not known."""


class KeptRuns(NamedTuple):
    """What was kept of the pack's runs on this machine."""

    history: History
    note: str
    """Why there is nothing, or what is wrong; "" where all is well."""
    last_at: str
    """When the last run ended, for people; "" where there was none."""


@dataclass(frozen=True, slots=True)
class PageFacts:
    """All that a page says."""

    manifest: Manifest
    plan: Plan
    """The plan that is shown; has a prediction."""
    promised_s: float
    """Seconds within which the target's share of the runs end."""
    explanation: Explanation
    frontier: Sequence[FrontierPoint]
    """By latency, the least first; empty where there is none to show."""
    memory: Sequence[MemoryPart]
    machine: MachineFacts
    kept: KeptRuns
    run_command: str
    """What runs the pack under this target."""
    made: str
    """When, by which release."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        kept = self.kept
        return {
            "name": self.manifest.name,
            "plan": self.plan.to_json(),
            "promised_s": self.promised_s,
            "explanation": self.explanation.to_json(),
            "frontier": [_point_json(point) for point in self.frontier],
            "memory": [part._asdict() for part in self.memory],
            "machine": {
                "device": self.machine.profile.device,
                "provisional": self.machine.profile.provisional,
                "measured": self.machine.measured or None,
            },
            "history": {**history_json(kept.history), "note": kept.note or None},
        }


def _point_json(point: FrontierPoint) -> dict[str, Any]:
    found = point.plan.predicted
    assert found is not None, "plans of a frontier have predictions"
    return {
        "latency_s": point.latency_s,
        "depth": point.plan.depth,
        "width": point.plan.width,
        "total_s": found.total_s,
        "bytes_read": found.bytes_read,
        "loss": found.loss,
        "quality": None if found.quality is None else found.quality._asdict(),
    }
